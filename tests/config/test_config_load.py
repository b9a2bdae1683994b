"""What is read: every form of the file, where it is looked for, and what comes of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path

import pytest

from aimux.config import (
    Config,
    ConfigError,
    Listen,
    find_config,
    load_config,
    parse_config,
    pattern_kind,
    provider_instances,
)
from aimux.config.files import working_folder
from aimux.plugin import Provider
from tests.config.conftest import PROVIDERS, TOKEN, LabSettings, Load


def test_no_file_and_no_environment_give_the_defaults() -> None:
    config = load_config(None, environ={"HOME": "/home/me"}, providers=PROVIDERS)
    assert str(config.listen) == "127.0.0.1:8080"
    assert config.state_dir == Path("/home/me/.aimux")
    assert config.providers is None
    assert config.mounts is None
    assert config.users == ()
    assert not config.admin.configured
    assert (config.request_timeout, config.stream_idle_timeout, config.connect_timeout) == (600, 360, 10)
    assert (config.refresh_check_interval, config.refresh_before_expiry, config.drain_timeout) == (600, 300, 30)
    assert config.max_body_size == 64 * 2**20
    assert config.warnings == ()


def test_everything_can_be_said(load: Load) -> None:
    config = load(
        """
listen: "[::1]:9"
state_dir: state
providers:
  claude: {strategy: priority, accounts: {a: {weight: 2, priority: 1, groups: [x]}}, scopes: [r, w]}
  lab: {type: claude, base_url: "https://other.example/"}
  chatgpt:
users:
  - {name: alice, token: a-token-of-some-length, groups: [x], pin_accounts: true}
mounts: {/: claude, /lab/: lab, /api/latest/anthropic: claude, /gpt: chatgpt}
models: {opus: {provider: lab}, "g*": [{account: chatgpt/b, priority: 2}, {provider: chatgpt, model: m}]}
log_level: WARN
log_format: json
request_timeout: 2m
stream_idle_timeout: 1
connect_timeout: 500ms
refresh_check_interval: 1s
refresh_before_expiry: 0
drain_timeout: 0
max_body_size: 1MB
trusted_proxies: [10.0.0.0/8]
metrics_public: true
tls: {enabled: true, self_signed: true}
admin: {token_sha256: %s}
"""
        % ("ab" * 32)
    )
    assert config.listen == Listen("::1", 9)
    assert config.state_dir.is_absolute()
    assert config.state_dir.name == "state"
    assert config.providers is not None
    claude = config.providers["claude"]
    assert isinstance(claude.settings, LabSettings)
    assert claude.settings.scopes == ("r", "w")
    assert claude.settings.accounts["a"].weight == 2
    assert config.providers["lab"].plugin == "claude"
    assert config.providers["lab"].settings.base_url == "https://other.example"
    assert config.providers["chatgpt"].settings == PROVIDERS["chatgpt"].Settings()
    assert config.users[0].sha256 == hashlib.sha256(TOKEN.encode()).digest()
    assert config.users[0].groups == ("x",)
    assert config.users[0].pin_accounts
    assert config.mounts == {"/": "claude", "/lab": "lab", "/api/latest/anthropic": "claude", "/gpt": "chatgpt"}
    assert [target.instance for target in config.models["opus"]] == ["lab"]
    first, second = config.models["g*"]
    assert (first.instance, first.account_name, first.model) == ("chatgpt", None, "m")
    assert (second.instance, second.account_name, second.model) == ("chatgpt", "b", None)
    assert config.log_level == "warning"
    assert config.connect_timeout == 0.5
    assert config.trusted_proxies == (ip_network("10.0.0.0/8"),)
    assert config.admin.sha256 == bytes.fromhex("ab" * 32)
    assert config.warnings == ()


def test_names_for_a_certificate_of_ones_own(load: Load) -> None:
    tls = load('tls: {self_signed: {names: [Gateway.LAN, "[fd00::0001]", 10.0.0.5, "*.bücher.example"]}}').tls
    assert tls.self_signed is not None
    assert tls.self_signed.names == ("gateway.lan", "fd00::1", "10.0.0.5", "*.xn--bcher-kva.example")
    assert load("tls: {self_signed: false}").tls.self_signed is None


def test_the_form_documented_for_ai_mux_works_unchanged(load: Load) -> None:
    config = load(
        """
listen: ":443"
state_dir: "/var/lib/ai-mux"
log_level: "warn"
providers:
  - claude
  - chatgpt
users:
  - name: "alice"
    token: "a-token-made-for-this-test-1"
  - name: "team"
    token: "a-token-made-for-this-test-2"
tls:
  enabled: true
  cert_path: "/etc/certs/ai-mux.crt"
  key_path: "/etc/certs/ai-mux.key"
request_timeout: "1m30s"
refresh_check_interval: 600
"""
    )
    assert config.listen == Listen("", 443)
    assert config.state_dir == Path("/var/lib/ai-mux")
    assert config.log_level == "warning"
    assert list(config.providers or {}) == ["claude", "chatgpt"]
    assert [user.name for user in config.users] == ["alice", "team"]
    assert config.tls.enabled
    assert config.tls.key_path == Path("/etc/certs/ai-mux.key")
    assert (config.request_timeout, config.refresh_check_interval) == (90, 600)


def test_ai_mux_leaves_unused_things_empty(load: Load) -> None:
    config = load('users: []\ntls: {enabled: false, cert_path: "", key_path: ""}\n')
    assert config == Config.model_validate({}, context=None).model_copy(update={"state_dir": config.state_dir})


@pytest.mark.parametrize("written", ["[]", "{}"])
def test_no_providers_at_all_are_none_as_in_ai_mux(load: Load, written: str) -> None:
    config = load(f"providers: {written}\n")
    assert provider_instances(config, PROVIDERS) == {}
    assert [warning.where for warning in config.warnings] == ["providers"]
    with pytest.raises(ConfigError, match="not a provider of this configuration"):
        load(f"providers: {written}\nmounts: {{/: claude}}\n")


def test_nothing_behind_a_key_means_that_it_is_not_there(load: Load) -> None:
    assert load("users:\n  # - name: alice\ntls:\n  enabled:\nmounts: {}\n").users == ()


def test_a_misspelt_key_is_refused_though_nothing_is_behind_it(load: Load) -> None:
    for text, where in (("userz:\n", "userz"), ("tls: {enable: }\n", "tls.enable"), ("root:*:19000::\n", "root")):
        with pytest.raises(ConfigError, match=where):
            load(text)


@pytest.mark.parametrize("name", ["config.json", "config.yaml"])
def test_json_is_read(load: Load, name: str) -> None:
    config = load(json.dumps({"listen": ":1", "users": [{"name": "a", "token": TOKEN}]}, indent="\t"), name=name)
    assert str(config.listen) == ":1"


def test_paths_begin_at_home_or_beside_the_file(load: Load, tmp_path: Path) -> None:
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "alice").write_text(f"{TOKEN}\r\n\n")
    config = load(
        "state_dir: ~/s\ntls: {cert_path: c.pem, key_path: /k.pem}\nusers: [{name: a, token_file: tokens/alice}]"
    )
    assert config.state_dir == Path("/home/me/s")
    assert config.tls.cert_path == tmp_path / "c.pem"
    assert config.tls.key_path == Path("/k.pem")
    assert config.users[0].sha256 == hashlib.sha256(TOKEN.encode()).digest()


def test_where_the_file_is_looked_for(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path / "home")}
    assert find_config(None, environ, tmp_path) is None
    at_home = tmp_path / "home" / ".config" / "aimux" / "config.yaml"
    at_home.parent.mkdir(parents=True)
    at_home.touch()
    assert find_config(None, environ, tmp_path) == at_home
    assert find_config(None, environ | {"XDG_CONFIG_HOME": str(tmp_path / "xdg")}, tmp_path) is None
    here = tmp_path / "config.yaml"
    here.touch()
    assert find_config(None, environ, tmp_path) == here
    assert find_config(None, environ | {"AIMUX_CONFIG": "x.yaml"}, tmp_path) == tmp_path / "x.yaml"
    assert find_config(Path("/y.yaml"), environ | {"AIMUX_CONFIG": "x.yaml"}, tmp_path) == Path("/y.yaml")


def test_a_working_folder_that_was_replaced_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each release's deployment does that. A reload ended the server."""
    folder = tmp_path / "current"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert working_folder({"PWD": "/elsewhere"}) == folder
    folder.rename(tmp_path / "old")
    (tmp_path / "old").rmdir()
    assert working_folder({"PWD": str(folder)}) == folder
    assert working_folder({}) == Path("/")
    assert load_config(None, environ={"PWD": str(folder)}, providers={}).state_dir


def test_a_configuration_can_be_data_already() -> None:
    config = parse_config({"listen": ":1", "providers": ["claude"]}, environ={"HOME": "/h"}, providers=PROVIDERS)
    assert str(config.listen) == ":1"


def test_patterns_of_models() -> None:
    kinds = {
        "default": "default",
        "gpt-5": "exact",
        "gpt-*": "prefix",
        "*": "prefix",
        "/gpt-.*/": "regex",
        "//": "exact",
    }
    assert {pattern: pattern_kind(pattern) for pattern in kinds} == kinds


def test_ten_thousand_users_load(load: Load) -> None:
    users = "".join(f"  - name: user-{n}\n    token: token-of-user-number-{n:05}\n" for n in range(10_000))
    assert len({user.sha256 for user in load("users:\n" + users).users}) == 10_000


def test_a_plugin_s_settings_that_were_validated_before_are_taken(providers: Mapping[str, type[Provider]]) -> None:
    first = parse_config({"providers": ["claude"]}, environ={"HOME": "/h"}, providers=providers)
    again = parse_config({"providers": dict(first.providers or {})}, environ={"HOME": "/h"}, providers=providers)
    assert again.providers == first.providers
