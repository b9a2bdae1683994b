"""Nobody gets in who did not get in before."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest

from aimux.simulator import Simulator, provider_settings
from tests.migrate.support import LOGIN, ROUTER, Migration, digest, environment, new_tokens, service
from tests.running import PROMPT, serving_file

SHORT, LONG = "sk-proxy-key-1", "a-virtual-key-long-enough"


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


def test_a_dry_run_makes_no_tokens(migrate: Migration) -> None:
    said = migrate(
        migrate.file("maxmux.yaml", "virtual_keys: []\noauth_token: sk-ant-oat01-x\n"), "--dry-run", expect=1
    )
    assert "! users: none has a token there that came along: 'owner' gets a new token" in said
    assert not new_tokens(said)


RECORD = {"id": "6e2a", "label": "alice", "issued_at": 1760000000, "expires_at": 4070908800, "revoked": False}


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
