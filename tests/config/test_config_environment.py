from __future__ import annotations

import json

import pytest
from pydantic import BaseModel

from aimux.config import Config, ConfigError, load_config
from aimux.config.environment import variable, variables
from aimux.limits.rules import LIMITS
from tests.config.conftest import PROVIDERS, TOKEN, Load, Problems

FILE = """listen: ":1"
providers: [claude, chatgpt]
tls:
  enabled: true
  self_signed: true
"""


def test_the_environment_wins_over_the_file(load: Load) -> None:
    config = load(
        FILE,
        AIMUX_LISTEN="[::1]:2",
        AIMUX_TLS__ENABLED="false",
        AIMUX_REQUEST_TIMEOUT="5s",
        AIMUX_MAX_BODY_SIZE="1MiB",
        AIMUX_LOG_LEVEL="debug",
    )
    assert str(config.listen) == "[::1]:2"
    assert not config.tls.enabled
    assert config.tls.self_signed
    assert (config.request_timeout, config.max_body_size, config.log_level) == (5, 2**20, "debug")


def test_lists_and_mappings_are_json_or_separated(load: Load) -> None:
    config = load(
        AIMUX_USERS=json.dumps([{"name": "alice", "token": TOKEN, "groups": ["x"]}]),
        AIMUX_PROVIDERS="claude, chatgpt",
        AIMUX_TRUSTED_PROXIES="10.0.0.0/8,fd00::/8 192.168.1.1",
        AIMUX_MOUNTS='{"/": "claude"}',
        AIMUX_TLS='{"enabled": true, "self_signed": true}',
        AIMUX_TLS__ENABLED="0",
    )
    assert config.users[0].groups == ("x",)
    assert list(config.providers or {}) == ["claude", "chatgpt"]
    assert len(config.trusted_proxies) == 3
    assert config.mounts == {"/": "claude"}
    assert config.tls.self_signed
    assert not config.tls.enabled


@pytest.mark.parametrize(
    "file", ["", "providers: [claude]", "providers: {claude: {scopes: [a]}}", "providers: {claude: }"]
)
def test_provider_settings(load: Load, file: str) -> None:
    config = load(
        file,
        AIMUX_PROVIDERS__CLAUDE__BASE_URL="https://p.example",
        AIMUX_PROVIDERS__CLAUDE__SCOPES="b c",
        AIMUX_PROVIDERS__CLAUDE__ACCOUNTS__MAIN__WEIGHT="2",
        AIMUX_PROVIDERS__CLAUDE__HEADERS='{"x-a": "${env:A}"}',
        A="1",
    )
    assert config.providers is not None
    settings = config.providers["claude"].settings
    assert settings.base_url == "https://p.example"
    assert settings.model_dump()["scopes"] == ("b", "c")
    assert settings.accounts["main"].weight == 2
    assert settings.headers["x-a"].get_secret_value() == "1"


def test_a_name_with_hyphens_is_found(load: Load) -> None:
    config = load("providers: {My-Lab: {type: claude}}", AIMUX_PROVIDERS__MY_LAB__BASE_URL="https://p.example")
    assert config.providers is not None
    assert config.providers["My-Lab"].settings.base_url == "https://p.example"


def test_an_anchor_is_not_changed_at_both_ends(load: Load) -> None:
    text = "providers: {claude: &x {type: claude}, lab: *x}"
    config = load(text, AIMUX_PROVIDERS__LAB__BASE_URL="https://p.example")
    assert config.providers is not None
    assert config.providers["claude"].settings.base_url == "https://lab.example"
    assert config.providers["lab"].settings.base_url == "https://p.example"


def test_an_empty_variable_counts_as_not_set(load: Load) -> None:
    assert str(load(FILE, AIMUX_LISTEN="", AIMUX_NO_SUCH="").listen) == ":1"


def test_what_is_no_field_is_left_alone(load: Load) -> None:
    load(
        "providers: {claude: {api_key: '${env:AIMUX_MY_KEY}'}}",
        AIMUX_CONFIG="x.yaml",
        AIMUX_TOKEN="my-own-token-for-codex",
        AIMUX_MY_KEY="k",
        # What Kubernetes puts beside services named aimux and aimux-metrics:
        AIMUX_SERVICE_HOST="10.0.0.1",
        AIMUX_SERVICE_PORT="8080",
        AIMUX_SERVICE_PORT_HTTP="8080",
        AIMUX_PORT="tcp://10.0.0.1:8080",
        AIMUX_PORT_8080_TCP="tcp://10.0.0.1:8080",
        AIMUX_PORT_8080_TCP_ADDR="10.0.0.1",
        AIMUX_METRICS_SERVICE_HOST="10.0.0.2",
        AIMUX_METRICS_PORT_9090_TCP_PROTO="tcp",
        OTHER="x",
    )


@pytest.mark.parametrize(
    ("name", "where", "message", "remedy"),
    [
        ("AIMUX_LISTN", "AIMUX_LISTN", "is not a setting", "did you mean AIMUX_LISTEN?"),
        ("AIMUX_TLS_ENABLED", "AIMUX_TLS_ENABLED", "is not a setting", "did you mean AIMUX_TLS__ENABLED?"),
        ("AIMUX_XYZZY", "AIMUX_XYZZY", "is not a setting", "docs/configuration.md"),
        ("AIMUX_USERS__0__TOKEN", "AIMUX_USERS__0__TOKEN", "can't reach into users", "JSON in AIMUX_USERS"),
        ("AIMUX_TLS__ENABLE", "tls.enable", "is not a known setting", "did you mean enabled?"),
        ("AIMUX_TLS__ENABLED", "tls.enabled", "must be true or false", ""),
        ("AIMUX_TLS__", 'tls[""]', "is not a known setting", ""),
        ("AIMUX_MOUNTS", "mounts", "must be a mapping of names to values, not text", ""),
        ("AIMUX_REQUEST_TIMEOUT", "request_timeout", "is not a duration", "1h30m"),
    ],
)
def test_what_is_wrong_names_the_variable(problems: Problems, name: str, where: str, message: str, remedy: str) -> None:
    [problem] = problems("users: [{name: a, token: a-token-of-some-length}]", **{name: "zzz"})
    assert problem.where == where
    assert message in problem.message
    assert remedy in problem.remedy
    assert problem.line is None
    assert name in {problem.source, problem.where}


def test_json_that_is_broken_is_refused(problems: Problems) -> None:
    [problem] = problems(AIMUX_USERS='[{"name": ]')
    assert (problem.where, problem.source) == ("users", "AIMUX_USERS")
    assert "must be a list" in problem.message


def test_problems_of_file_and_environment_come_together(problems: Problems) -> None:
    found = problems("listen: x\nlog_level: x\ntls: {enabled: x}", AIMUX_LISTEN="y", AIMUX_NO_SUCH="z")
    assert {(problem.where, problem.line) for problem in found} == {
        ("listen", None),
        ("log_level", 2),
        ("tls.enabled", 3),
        ("AIMUX_NO_SUCH", None),
    }


def test_a_line_of_the_file_is_not_blamed_for_the_environment(problems: Problems) -> None:
    [problem] = problems(
        "users:\n  - name: a\n    token: a-token-of-some-length\n", AIMUX_USERS='[{"name": "b", "token": "short"}]'
    )
    assert (problem.where, problem.line, problem.source) == ("users[0].token", None, "AIMUX_USERS")


def test_a_fault_of_the_file_s_text_stays_the_file_s(problems: Problems) -> None:
    [problem] = problems("listen: ':1'\nlisten: ':2'\n", AIMUX_LISTEN=":3")
    assert (problem.where, problem.line) == ("listen", 2)
    assert problem.source.endswith("config.yaml")


def test_the_line_of_a_listed_provider_is_kept(problems: Problems) -> None:
    [problem] = problems("providers:\n  - chatgpt\n  - cloude\n", AIMUX_PROVIDERS__CHATGPT__API_KEY="k")
    assert (problem.where, problem.line) == ("providers.cloude", 3)


def _leaves(model: type[BaseModel]) -> dict[str, str]:
    """A value for each field that can be set by a variable of its own."""
    values = {
        "LISTEN": ":7", "STATE_DIR": "/s", "PROVIDERS": "claude", "USERS": json.dumps([{"name": "a", "token": TOKEN}]),
        "ALLOW_ANONYMOUS": "true", "MOUNTS": '{"/": "claude"}', "MODELS": '{"x": {"provider": "claude"}}',
        "LOG_LEVEL": "error", "LOG_FORMAT": "json", "REQUEST_TIMEOUT": "1", "STREAM_IDLE_TIMEOUT": "2",
        "STREAM_START_TIMEOUT": "9", "MAX_WEBSOCKET_MESSAGE": "9999", "CORS": '{"allowed_origins": ["https://a.example"]}',
        "CORS__ALLOWED_ORIGINS": "https://b.example",
        "CONNECT_TIMEOUT": "3", "REFRESH_CHECK_INTERVAL": "4", "REFRESH_BEFORE_EXPIRY": "5", "DRAIN_TIMEOUT": "6",
        "MAX_BODY_SIZE": "7", "TRUSTED_PROXIES": "10.0.0.0/8", "DROP_HEADERS": "x-a,x-b-*",
        "TLS": '{"self_signed": true}', "TLS__ENABLED": "no",
        "TLS__CERT_PATH": "/c", "TLS__KEY_PATH": "/k", "TLS__SELF_SIGNED": "true",
        "TLS__SELF_SIGNED__NAMES": "a.example,10.0.0.5", "METRICS_PUBLIC": "on",
        "LANE": "off", "SHARED_STORAGE": "on",
        "ADMIN": json.dumps({"token": TOKEN + "2"}), "ADMIN__TOKEN": TOKEN + "3",
        "ADMIN__TOKEN_FILE": "", "ADMIN__TOKEN_SHA256": "",
        "DATABASE": json.dumps({"old_encryption_keys": ["00" * 32]}), "DATABASE__URL": "postgresql://h/d",
        "DATABASE__ENCRYPTION_KEY": "11" * 32, "DATABASE__OLD_ENCRYPTION_KEYS": json.dumps(["22" * 32]),
        "NOTICES": '{"webhooks": []}', "NOTICES__WEBHOOKS": '[{"url": "http://h/"}]', "NOTICES__APPRISE": '["x://y"]',
        "LIMITS": '{"fair_share": true}', "LIMITS__DEFAULT": '{"cost_per_day": 1.5}', "LIMITS__FAIR_SHARE": "true",
        "LIMITS__TIME_ZONE": "Europe/Berlin", "LIMITS__USERS": '{"a": {"weight": 2}}', "LIMITS__GROUPS": '{"b": {}}',
        "LIMITS__DEFAULT__PROVIDERS": '{"claude": {"tokens_per_day": 1}}', "LIMITS__DEFAULT__OVERAGE": "forbid",
        "LIMITS__DEFAULT__LONG_CONTEXT": "forbid", "LIMITS__DEFAULT__MODELS": '{"x*": {"cost_per_day": 1}}',
        **{f"LIMITS__DEFAULT__{name.upper()}": "8" for name in LIMITS}, "GROUPS": '{"ci": {"reserved": true}}',
        "SELF_SERVICE": "true", "COMPATIBILITY": "claude-proxy", "AUTH": json.dumps({"jwt": {"secret": TOKEN}}),
        "AUTH__JWT": json.dumps({"secret": TOKEN}), "AUTH__JWT__SECRET": TOKEN, "AUTH__JWT__JWKS_URL": "",
        "AUTH__JWT__KEY_FILE": "",
        "AUTH__JWT__ISSUER": "i",
        "AUTH__JWT__AUDIENCE": "a", "AUTH__JWT__PREFIX": "p", "AUTH__JWT__USER_CLAIM": "u", "AUTH__JWT__LEEWAY": "9s",
        "AUTH__JWT__GROUPS_CLAIM": "g", "AUTH__JWT__ROLE_CLAIM": "r",
        "LEDGER": '{"keep_requests": "9d"}', "LEDGER__KEEP_REQUESTS": "8d", "LEDGER__SPILL_LIMIT": "2MiB",
        "PRICES": '{"x*": {"input": 2}}', "METRICS": '{"per_user": false}', "METRICS__PER_USER": "true",
    }  # fmt: skip
    names = list(variables(model))
    assert {name.removeprefix("AIMUX_") for name in names} == set(values)
    return {f"AIMUX_{name}": value for name, value in values.items()}


def test_every_field_can_be_set_by_the_environment() -> None:
    environ = _leaves(Config)
    config = load_config(None, environ={"HOME": "/h", **environ}, providers=PROVIDERS)
    default = load_config(None, environ={"HOME": "/h"}, providers=PROVIDERS)
    for name in Config.model_fields:
        assert getattr(config, name) != getattr(default, name), f"{variable((name,))} changed nothing"


def test_each_field_alone_reaches_its_place() -> None:
    for name, value in _leaves(Config).items():
        needing = ("AIMUX_TLS", "AIMUX_DATABASE__URL", "AIMUX_AUTH__JWT__")
        if not value or name.startswith(needing):  # these need another beside them
            continue
        try:
            config = load_config(None, environ={"HOME": "/h", name: value}, providers=PROVIDERS)
        except ConfigError as error:
            pytest.fail(f"{name}: {error}")
        top = name.removeprefix("AIMUX_").partition("__")[0].lower()
        assert top in config.model_fields_set
