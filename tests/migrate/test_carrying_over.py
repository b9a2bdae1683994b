"""What people lose or leak when they move: nobody gets in who did not before, and what mattered there matters here."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from aimux.cli.migrate import migrate_command
from aimux.simulator import Simulator, provider_settings
from tests.running import PROMPT, serving_file

LOGIN = {"claudeAiOauth": {"accessToken": "sk-ant-oat01-theirs", "refreshToken": "rt", "expiresAt": 4070908800000}}
SHORT, LONG = "sk-proxy-key-1", "a-virtual-key-long-enough"


class Migration:
    """`aimux migrate` in a folder and a home of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output, self.state = folder / "aimux.yaml", folder / "state"

    def file(self, name: str, content: object, mode: int = 0o600) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        path.chmod(mode)
        return path

    def __call__(self, file: Path, *options: str, expect: int = 0) -> str:
        args = [str(file), "--output", str(self.output), "--state-dir", str(self.state), *options]
        done: Result = CliRunner().invoke(migrate_command, args)
        assert done.exit_code == expect, done.output
        return done.output

    @property
    def config(self) -> dict[str, Any]:
        loaded: dict[str, Any] = yaml.safe_load(self.output.read_text())
        return loaded

    def stored(self, name: str) -> Any:
        return json.loads((self.state / name).read_text())


@pytest.fixture
def migrate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Migration:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for variable in ("CLAUDE_CONFIG_DIR", "CODEX_HOME"):
        monkeypatch.delenv(variable, raising=False)
    return Migration(tmp_path)


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


# --- nobody gets in who did not before -------------------------------------------------------------------------------


async def with_simulator(work: Callable[[Simulator], None]) -> None:
    async with Simulator() as upstream:
        await asyncio.to_thread(work, upstream)


def status(address: str, token: str | None) -> int:
    headers = {"content-type": "application/json", "anthropic-version": "2023-06-01"}
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    request = urllib.request.Request(f"{address}/v1/messages", json.dumps(PROMPT).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        refused.close()
        return refused.code


def served(migrate: Migration, upstream: Simulator, tokens: list[str | None]) -> list[int]:
    environ = {"AIMUX_LISTEN": "127.0.0.1:0"}
    for name, value in provider_settings(upstream.url)["claude"].items():
        environ[f"AIMUX_PROVIDERS__CLAUDE__{name.upper()}"] = value
    with serving_file(migrate.output, migrate.folder, environ) as address:
        return [status(address, token) for token in tokens]


@pytest.mark.parametrize("keys", [[SHORT], [SHORT, LONG], ["k"], ["12345678"]])
async def test_short_keys_come_along_as_weak_ones_and_let_nobody_else_in(migrate: Migration, keys: list[str]) -> None:
    def work(upstream: Simulator) -> None:
        token = upstream.accounts["claude-setup"].access_token
        source = migrate.file("maxmux.yaml", f"oauth_token: {token}\nvirtual_keys: [{', '.join(keys)}]\n")
        said = migrate(source)
        users = migrate.config["users"]
        assert [user["token_sha256"] for user in users] == [digest(key) for key in keys]
        assert [user.get("weak", False) for user in users] == [len(key) < 16 for key in keys]
        assert "It came along as a weak token" in said
        assert served(migrate, upstream, [*keys, None, "something-else-altogether"]) == [200] * len(keys) + [401, 401]

    await with_simulator(work)


@pytest.mark.parametrize("keys", ["[]", "", "['']"])
async def test_where_nobody_had_a_key_a_new_one_is_made(migrate: Migration, keys: str) -> None:
    """maxmux without keys served nobody; aimux without users would serve whoever reaches loopback."""

    def work(upstream: Simulator) -> None:
        token = upstream.accounts["claude-setup"].access_token
        source = migrate.file("maxmux.yaml", f"oauth_token: {token}\nvirtual_keys: {keys}\n")
        new = new_tokens(migrate(source, expect=1))
        assert list(new) == ["owner"]
        assert served(migrate, upstream, [new["owner"], None]) == [200, 401]

    await with_simulator(work)


def new_tokens(said: str) -> dict[str, str]:
    _, _, listed = said.partition("New tokens")
    return dict(re.findall(r"^  (\S+)  (\S{43})$", listed, re.MULTILINE))


def test_a_dry_run_makes_no_tokens(migrate: Migration) -> None:
    said = migrate(
        migrate.file("maxmux.yaml", "virtual_keys: []\noauth_token: sk-ant-oat01-x\n"), "--dry-run", expect=1
    )
    assert "! users: none has a token there that came along: 'owner' gets a new token" in said
    assert not new_tokens(said)


ROUTER = {"TOKEN_SECRET": "s3cret", "CLAUDE_CODE_HOME": "claude", "DATA_DIR": "data"}
RECORD = {"id": "6e2a", "label": "alice", "issued_at": 1760000000, "expires_at": 4070908800, "revoked": False}


def environment(**variables: str) -> str:
    return "".join(f"{name}={value}\n" for name, value in variables.items())


def router_token(secret: str) -> str:
    """As that router makes it, from RECORD."""

    def part(data: object) -> str:
        raw = json.dumps(data, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    claims = {"sub": "6e2a", "iat": 1760000000, "exp": 4070908800, "label": "alice"}
    signed = f"{part({'typ': 'JWT', 'alg': 'HS256'})}.{part(claims)}"
    mac = hmac.digest(secret.encode(), signed.encode(), "sha256")
    return f"la_sk_{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def binary(*records: object) -> bytes:
    raw = [json.dumps(record).encode() for record in records]
    return b"LARTOK01" + b"".join(len(one).to_bytes(4, "little") + one for one in raw)


def test_a_binary_store_of_tokens_is_read(migrate: Migration) -> None:
    migrate.file("claude/.credentials.json", LOGIN)
    migrate.file("data/x", "")
    (migrate.folder / "data" / "tokens.bin").write_bytes(binary(RECORD, RECORD | {"id": "2", "revoked": True}))
    migrate(migrate.file("router.env", environment(**ROUTER)))
    assert migrate.config["users"] == [{"name": "alice", "token_sha256": digest(router_token("s3cret"))}]


@pytest.mark.parametrize("damage", [b"LARTOK01", b"LARTOK01\x05\0\0\0{", b"LARTOK01\x02\0\0\0{}"])
def test_a_store_without_a_readable_token_lets_nobody_in(migrate: Migration, damage: bytes) -> None:
    migrate.file("claude/.credentials.json", LOGIN)
    migrate.file("data/x", "")
    (migrate.folder / "data" / "tokens.bin").write_bytes(damage)
    assert list(new_tokens(migrate(migrate.file("router.env", environment(**ROUTER)), expect=1))) == ["owner"]


def test_without_the_secret_each_token_is_replaced(migrate: Migration) -> None:
    migrate.file("claude/.credentials.json", LOGIN)
    line = '(token 6e2a (label "alice") (issued_at 1760000000) (expires_at 4070908800) (revoked false))\n'
    migrate.file("data/tokens.lino", line)
    said = migrate(
        migrate.file("router.env", environment(**ROUTER | {"TOKEN_SECRET": "", "ROUTER_PORT": "1"})), expect=1
    )
    assert list(new_tokens(said)) == ["alice"]


def test_a_secret_alone_is_a_router(migrate: Migration) -> None:
    """Its only required variable: all else has defaults."""
    migrate.file("home/.claude/.credentials.json", LOGIN)
    (migrate.folder / "home" / ".link-assistant-router").mkdir()
    (migrate.folder / "home" / ".link-assistant-router" / "tokens.bin").write_bytes(binary(RECORD))
    said = migrate(migrate.file("router.env", environment(TOKEN_SECRET="s3cret")))
    assert "account   claude/default, shared with" in said
    assert [user["name"] for user in migrate.config["users"]] == ["alice"]


def test_a_key_in_a_variable_becomes_a_user_or_a_new_token(migrate: Migration, monkeypatch: pytest.MonkeyPatch) -> None:
    source = '[server]\napi_key = "$MUX_KEY"\n[router]\ndefault = "m"\n[[providers]]\nname = "a"\n'
    source += 'provider_type = "anthropic"\napi_key = "sk-ant-api03-x"\nmodels = []\n'
    source += '[[models]]\nname = "m"\n[[models.mappings]]\nprovider = "a"\nactual_model = "m"\npriority = 1\n'
    monkeypatch.delenv("MUX_KEY", raising=False)
    path = migrate.file("config.toml", source)
    assert list(new_tokens(migrate(path, expect=1))) == ["api-key"]
    migrate.output.unlink()
    monkeypatch.setenv("MUX_KEY", "short")
    migrate(path)
    assert migrate.config["users"] == [{"name": "api-key", "token_sha256": digest("short"), "weak": True}]


def test_a_key_of_digits_is_taken_as_it_is_written(migrate: Migration) -> None:
    migrate(migrate.file("m.yaml", "oauth_token: sk-ant-oat01-x\nvirtual_keys: [0123, 12:30, 1e3, 0x1F, 2026-01-01]\n"))
    hashes = [user["token_sha256"] for user in migrate.config["users"]]
    assert hashes == [digest(key) for key in ("0123", "12:30", "1e3", "0x1F", "2026-01-01")]


def service(kind: str, *users: tuple[str, str]) -> dict[str, Any]:
    return {
        "type": kind,
        "listen": "127.0.0.1",
        "listen_port": 8080,
        "credential_path": f"{kind}.json",
        "users": [{"name": name, "token": token} for name, token in users],
    }


def test_a_user_of_one_service_does_not_get_the_others_account(migrate: Migration) -> None:
    migrate.file("ccm.json", LOGIN)
    migrate.file("ocm.json", {"tokens": {"access_token": "opaque"}})
    both, one, other = (
        ("both", "token-of-both-services"),
        ("ann", "token-of-ann-for-claude"),
        ("bob", "token-of-bob-codex"),
    )
    source = {"services": [service("ccm", both, one), service("ocm", both, other)]}
    migrate(migrate.file("sing-box.json", source), expect=1)
    groups = {user["name"]: user["groups"] for user in migrate.config["users"]}
    assert groups == {"both": ["chatgpt", "claude"], "ann": ["claude"], "bob": ["chatgpt"]}
    for name in ("claude", "chatgpt"):
        assert migrate.config["providers"][name]["accounts"]["default"]["groups"] == [name]


def test_users_of_both_services_need_no_groups(migrate: Migration) -> None:
    migrate.file("ccm.json", LOGIN)
    migrate.file("ocm.json", {"tokens": {"access_token": "opaque"}})
    both = ("both", "token-of-both-services")
    migrate(migrate.file("s.json", {"services": [service("ccm", both), service("ocm", both)]}), expect=1)
    assert migrate.config["users"] == [{"name": "both", "token_sha256": digest(both[1])}]
    assert "accounts" not in migrate.config["providers"]["claude"]


# --- a live login stays its owner's ----------------------------------------------------------------------------------


def test_the_login_of_a_vendors_cli_is_shared(migrate: Migration) -> None:
    home = migrate.file("claude/.credentials.json", LOGIN)
    said = migrate(migrate.file("router.env", environment(**ROUTER)), expect=1)
    link = migrate.state / "claude" / ".credentials.json"
    assert link.is_symlink()
    assert link.resolve() == home
    assert f"claude/default, shared with {home}" in said
    assert "Stop the old gateway" not in said
    migrate.output.unlink()
    assert "claude/default (there already)" in migrate(migrate.folder / "router.env", expect=1)


def test_it_is_copied_only_when_that_is_said(migrate: Migration) -> None:
    migrate.file("claude/.credentials.json", LOGIN, mode=0o644)
    source = migrate.file("router.env", environment(**ROUTER))
    refused = migrate(source, expect=1)
    assert "claude/.credentials.json can be read by others" in refused
    assert "--copy" in refused
    assert not migrate.output.exists()
    said = migrate(source, "--copy", expect=1)
    assert not (migrate.state / "claude" / ".credentials.json").is_symlink()
    assert "Stop the old gateway for good" in said


def test_a_login_that_is_never_renewed_is_copied(migrate: Migration) -> None:
    migrate.file("claude/.credentials.json", {"oauth_token": "sk-ant-oat01-of-a-setup"})
    migrate(migrate.file("router.env", environment(**ROUTER)), expect=1)
    assert not (migrate.state / "claude" / ".credentials.json").is_symlink()


@pytest.mark.parametrize("given", [True, False])
def test_the_cli_s_own_place_is_known_whoever_names_it(migrate: Migration, given: bool) -> None:
    home = migrate.file("home/.codex/auth.json", {"tokens": {"access_token": "opaque", "refresh_token": "rt"}})
    one = service("ocm", ("ann", "token-of-ann-for-codex"))
    if given:
        one["credential_path"] = str(home)
    else:
        del one["credential_path"]
    migrate(migrate.file("sing-box.json", {"services": [one]}))
    assert (migrate.state / "chatgpt" / "auth.json").resolve() == home


# --- priorities and accounts -----------------------------------------------------------------------------------------

MUX = """
[router]
default = "claude-sonnet"
[[providers]]
name = "subscription"
provider_type = "anthropic"
auth_type = "oauth"
oauth_provider = "max"
models = []
[[providers]]
name = "paid"
provider_type = "anthropic"
api_key = "sk-ant-api03-paid"
models = []
[[providers]]
name = "by-variable"
provider_type = "anthropic"
api_key = "$PAID_TOO"
models = []
[[models]]
name = "claude-sonnet"
[[models.mappings]]
provider = "paid"
actual_model = "claude-sonnet-5"
priority = 2
[[models.mappings]]
provider = "subscription"
actual_model = "claude-sonnet"
priority = 1
[[models.mappings]]
provider = "by-variable"
actual_model = "claude-sonnet"
priority = 3
"""
TOKENS = {"max": {"access_token": "sk-ant-oat01-x", "refresh_token": "rt", "expires_at": "2099-01-01T00:00:00Z"}}


def test_a_paid_key_stays_behind_the_subscription(migrate: Migration) -> None:
    migrate.file("oauth_tokens.json", TOKENS)
    migrate(migrate.file("config.toml", MUX))
    targets = migrate.config["models"]["claude-sonnet"]
    assert sorted(targets, key=lambda target: target["priority"]) == [
        {"account": "claude/subscription", "priority": 1},
        {"account": "claude/paid", "priority": 2, "model": "claude-sonnet-5"},
        {"account": "claude/api-key", "priority": 3},
    ]
    default = sorted(migrate.config["models"]["default"], key=lambda target: target["priority"])
    assert [(target["account"], target["model"]) for target in default] == [
        ("claude/subscription", "claude-sonnet"),
        ("claude/paid", "claude-sonnet-5"),
        ("claude/api-key", "claude-sonnet"),
    ]
    accounts = migrate.config["providers"]["claude"]["accounts"]
    assert {name: account["priority"] for name, account in accounts.items()} == {
        "subscription": 1,
        "paid": 2,
        "api-key": 3,
    }


def test_two_providers_of_one_login_are_one_account(migrate: Migration) -> None:
    migrate.file("oauth_tokens.json", TOKENS)
    text = MUX.replace('api_key = "sk-ant-api03-paid"', 'auth_type = "oauth"\noauth_provider = "max"')
    migrate(migrate.file("config.toml", text.replace('api_key = "$PAID_TOO"', 'api_key = "sk-ant-api03-y"')))
    assert {target["account"] for target in migrate.config["models"]["claude-sonnet"]} == {
        "claude/subscription",
        "claude/by-variable",
    }


def test_an_account_that_can_not_be_read_leaves_no_route_to_it(migrate: Migration) -> None:
    migrate.file("oauth_tokens.json", {"max": {"access_token": "", "refresh_token": ""}})
    said = migrate(migrate.file("config.toml", MUX), expect=1)
    assert "! account 'subscription' from oauth_tokens.json: max" in said
    assert "subscription" not in migrate.output.read_text()


def test_what_speaks_another_format_is_said_and_not_routed_to(migrate: Migration) -> None:
    migrate.file("oauth_tokens.json", TOKENS)
    text = MUX.replace('name = "paid"\nprovider_type = "anthropic"', 'name = "paid"\nprovider_type = "openrouter"')
    said = migrate(migrate.file("config.toml", text), expect=1)
    assert "! model 'claude-sonnet' by 'paid': it speaks another format" in said
    assert migrate.config["providers"]["paid"]["base_url"] == "https://openrouter.ai/api/v1"
    assert migrate.config["mounts"] == {"/": "claude", "/claude": "claude", "/paid": "paid"}
    assert migrate.stored("paid/credential.json") == {"api_key": "sk-ant-api03-paid"}


# --- claude-proxy ----------------------------------------------------------------------------------------------------

PROXY = "storage: {data_folder: data}\noauth:\n  redirect_uri: https://x.example/callback\n"
PROXY += "  scope: 'user:profile user:inference'\n  client_id: c\nclaude: {base_url: ''}\nserver: {port: 4000}\n"
ACCOUNT = {"id": "1", "name": "A", "access_token": "sk-ant-oat01-a", "refresh_token": "rt-a", "expires_at": 4070908800}


@pytest.mark.parametrize(
    "files",
    [
        {"accounts.json": [ACCOUNT]},
        {"account.json": {key: value for key, value in ACCOUNT.items() if key not in {"id", "name"}}},
        {"account_1.json": ACCOUNT},
        {"accounts.json": [ACCOUNT], "account_1.json": ACCOUNT | {"access_token": "older"}},
        {"accounts.json": {"org-1": {"status": "active", "oauth_token": ACCOUNT}}},
    ],
    ids=["list", "one", "each", "both", "map"],
)
def test_every_form_of_claude_proxys_accounts_comes_along(migrate: Migration, files: dict[str, object]) -> None:
    for name, content in files.items():
        migrate.file(f"data/{name}", content)
    migrate.file("data/tokens.json", [{"name": "ann", "key": "key-of-ann-long-enough", "status": "active"}])
    said = migrate(migrate.file("config.yaml", PROXY))
    oauth = migrate.stored("claude/.credentials.json")["claudeAiOauth"]
    assert (oauth["accessToken"], oauth["refreshToken"], oauth["expiresAt"]) == (
        "sk-ant-oat01-a",
        "rt-a",
        4070908800000,
    )
    settings = migrate.config["providers"]["claude"]
    assert settings["redirect_url"] == "https://x.example/callback"
    assert settings["scopes"] == "user:profile user:inference"
    assert ("is in a newer file too" in said) is (len(files) == 2)


def test_a_data_folder_alone_is_read(migrate: Migration) -> None:
    migrate.file("data/account_1.json", ACCOUNT)
    migrate.file("data/account_2.json", ACCOUNT | {"id": "2", "name": "B", "status": "inactive"})
    migrate.file("data/tokens.json", [{"name": "ann", "key": "key-of-ann-long-enough", "status": "active"}])
    assert "claude/B, disabled" in migrate(migrate.folder / "data")
    assert migrate.stored("accounts.json")["accounts"]["claude"] == {"B": {"disabled": True}}


def test_a_proxy_without_its_data_is_no_success(migrate: Migration) -> None:
    said = migrate(migrate.file("config.yaml", PROXY), expect=1)
    assert "! its accounts: none are in" in said
    assert "! its tokens:" in said
    assert list(new_tokens(said)) == ["owner"]


def test_a_containers_folder_is_found_beside_the_configuration(migrate: Migration) -> None:
    migrate.file("data/account_1.json", ACCOUNT)
    migrate.file("data/tokens.json", [{"name": "ann", "key": "key-of-ann-long-enough"}])
    migrate(migrate.file("config.yaml", PROXY.replace("data_folder: data", "data_folder: /nowhere-data")))
    assert migrate.config["users"][0]["name"] == "ann"


# --- ai-mux, CLIProxyAPI ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", [".ai-mux", ".aimux"])
def test_ai_muxs_usual_state_folder(migrate: Migration, folder: str) -> None:
    migrate.file(f"home/{folder}/claude/.credentials.json", LOGIN)
    migrate(migrate.file("config.yaml", "listen: ':8080'\nproviders: [claude]\n"))
    assert migrate.stored("claude/.credentials.json") == LOGIN


def test_no_providers_of_ai_mux_stay_none(migrate: Migration) -> None:
    migrate.file("home/.ai-mux/claude/.credentials.json", LOGIN)
    said = migrate(migrate.file("config.yaml", "listen: ':8080'\nproviders: []\nstate_dir: s\n"), expect=1)
    assert "! accounts: none came along" in said
    assert migrate.config["providers"] == {}


@pytest.mark.parametrize(
    ("source", "certificate"),
    [
        ("providers: [claude]\nstate_dir: s\ntls: {enabled: true, cert_path: tls/c.pem, key_path: /k.pem}\n", "ai-mux"),
        ("auth-dir: auth\nport: 1\ntls: {enable: true, cert: tls/c.pem, key: /k.pem}\n", "cli-proxy-api"),
    ],
)
def test_paths_stay_where_they_led(migrate: Migration, source: str, certificate: str) -> None:
    migrate.file("there/s/claude/.credentials.json", LOGIN)
    migrate.file("there/auth/c.json", {"type": "claude", "email": "a@b", "access_token": "sk-ant-oat01-x"})
    migrate(migrate.file("there/config.yaml", source), "--from", certificate)
    tls = migrate.config["tls"]
    assert tls["cert_path"] == str(migrate.folder / "there" / "tls" / "c.pem")
    assert tls["key_path"] == "/k.pem"


COMPATIBLE = """
auth-dir: auth
port: 1
auth:
  providers:
    - {type: config-api-key, api-keys: [a-key-of-older-versions]}
openai-compatibility:
  - name: openrouter
    base-url: https://openrouter.ai/api/v1
    headers: {X-Team: research, X-Session: "$Session"}
    api-key-entries:
      - {api-key: sk-or-one, weight: 5}
      - {api-key: sk-or-two, proxy-url: "socks5://p:1"}
    models:
      - {name: "moonshotai/kimi-k2:free", alias: kimi-k2}
      - {name: glm-5}
  - {name: off, disabled: true, base-url: "https://off.example/v1", api-key-entries: [{api-key: k-off}], models: []}
  - {name: nowhere, api-key-entries: [{api-key: k}], models: []}
claude-api-key:
  - api-key: sk-ant-api03-x
    priority: 10
    models: [{name: claude-sonnet-5, alias: sonnet}]
    excluded-models: ["*haiku*"]
"""


def test_openai_compatibility_is_compatible(migrate: Migration) -> None:
    (migrate.folder / "auth").mkdir()
    said = migrate(migrate.file("config.yaml", COMPATIBLE), expect=1)
    settings = migrate.config["providers"]["openrouter"]
    assert settings == {
        "type": "compatible",
        "format": "openai",
        "base_url": "https://openrouter.ai/api/v1",
        "headers": {"X-Team": "research"},
        "accounts": {"key-1": {"weight": 5.0}},
    }
    assert migrate.stored("openrouter/key-2/credential.json") == {"api_key": "sk-or-two"}
    assert migrate.config["models"] == {
        "sonnet": [{"provider": "claude", "model": "claude-sonnet-5"}],
        "kimi-k2": [{"provider": "openrouter", "model": "moonshotai/kimi-k2:free"}],
        "glm-5": [{"provider": "openrouter"}],
    }
    assert migrate.config["providers"]["claude"]["accounts"] == {"default": {"priority": -10}}
    assert migrate.config["users"] == [{"name": "key-1", "token_sha256": digest("a-key-of-older-versions")}]
    assert migrate.stored("accounts.json")["accounts"]["off"] == {"default": {"disabled": True}}
    for note in (
        "openai-compatibility[0].headers.X-Session: is copied from the client",
        "openai-compatibility[0].api-key-entries[1].proxy-url: goes out directly",
        "! openai-compatibility[2].base-url: is empty",
        "claude-api-key[0].excluded-models: has no counterpart",
        "! clients of openrouter: they add /openrouter",
    ):
        assert note in said
    assert "clients of off" not in said


def test_what_a_login_says_of_its_part_comes_along(migrate: Migration) -> None:
    one = {
        "type": "claude",
        "email": "a@x",
        "access_token": "sk-ant-oat01-a",
        "priority": 5,
        "weight": 3,
        "prefix": "p",
    }
    migrate.file("auth/a.json", one)
    migrate.file("auth/b.json", {"type": "claude", "email": "b@x", "access_token": "sk-ant-oat01-b", "weight": 0})
    migrate.file("auth/c.json", {"type": "qwen", "email": "c@x", "access_token": "q", "disabled": True})
    said = migrate(migrate.folder / "auth")
    assert migrate.config["providers"]["claude"]["accounts"] == {"a@x": {"priority": -5, "weight": 3.0}}
    assert migrate.stored("accounts.json")["accounts"]["claude"] == {"b@x": {"disabled": True}}
    assert "a.json: prefix: has no counterpart" in said
    assert "  c.json: aimux has no provider for 'qwen'" in said
