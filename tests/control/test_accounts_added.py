"""Accounts that are added, or replaced, through the API."""

from __future__ import annotations

import json
import stat

import pytest

from aimux.simulator import Simulator
from aimux.simulator.demo import credential_file
from tests.control.conftest import Aimux


async def test_a_credential_file_becomes_an_account(aimux: Aimux, sim: Simulator) -> None:
    raw = credential_file(sim.add_account("ann", "anthropic"))
    added = await aimux.post("/accounts", {"provider": "claude", "name": "ann", "file": raw.decode()}, expect=201)
    assert (added["name"], added["status"], added["kind"]) == ("ann", "healthy", "oauth")
    path = aimux.state_dir / "claude" / "ann" / ".credentials.json"
    assert path.read_bytes() == raw
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "admin: claude/ann was added" in aimux.log


async def test_names_are_chosen_sensibly(aimux: Aimux, sim: Simulator) -> None:
    ann, other = sim.add_account("ann", "openai"), sim.add_account("ann2", "openai")
    other.email = ann.email
    login = {"provider": "chatgpt", "file": credential_file(ann).decode()}
    assert (await aimux.post("/accounts", login, expect=201))["name"] == "ann"
    refused = await aimux.post("/accounts", login, expect=409)
    assert (refused["type"], refused["account"]) == ("urn:aimux:account-exists", "chatgpt/ann")
    second = {"provider": "chatgpt", "file": credential_file(other).decode()}
    assert (await aimux.post("/accounts", second, expect=201))["name"] == "ann-2"
    key = {"provider": "chatgpt", "api_key": "sk-proj-a-key-of-no-name"}
    assert (await aimux.post("/accounts", key, expect=201))["name"] == "account-2"
    assert (await aimux.post("/accounts", key, expect=409))["account"] == "chatgpt/account-2"
    assert (await aimux.send("DELETE", "/accounts/chatgpt/default"))[0] == 204
    fresh = {"provider": "chatgpt", "api_key": "sk-proj-another-key"}
    assert (await aimux.post("/accounts", fresh, expect=201))["name"] == "default"


async def test_keys_and_setup_tokens_become_accounts_that_serve(aimux: Aimux, sim: Simulator) -> None:
    await aimux.send("DELETE", "/accounts/claude/default")
    key = {"provider": "claude", "api_key": f" {sim.accounts['claude-key'].api_key}\n"}
    assert (await aimux.post("/accounts", key, expect=201))["kind"] == "api_key"
    assert (await aimux.message())[0] == 200
    token = {"provider": "claude", "name": "ci", "setup_token": sim.accounts["claude-setup"].access_token}
    added = await aimux.post("/accounts", token, expect=201)
    assert (added["kind"], added["renewable"]) == ("oauth", False)
    assert (await aimux.post("/accounts/claude/ci/test"))["ok"]


async def test_replacing_is_asked_for_and_cures_a_parked_account(aimux: Aimux, sim: Simulator) -> None:
    sim.accounts["claude"].revoke()
    assert (await aimux.message())[0] in {401, 403}
    assert (await aimux.get("/accounts/claude/default"))["status"] == "parked"
    fresh = sim.tokens["anthropic"].login(sim.accounts["claude"], sim.accounts["claude"].family.client_id)
    assert fresh.access_token == sim.accounts["claude"].access_token
    login = {"provider": "claude", "name": "default", "file": credential_file(sim.accounts["claude"]).decode()}
    await aimux.post("/accounts", login, expect=409)
    assert (await aimux.post("/accounts", login | {"replace": True}, expect=201))["status"] == "healthy"
    assert (await aimux.message())[0] == 200


async def test_a_refresh_token_that_is_no_text_is_found_out_by_its_vendor(aimux: Aimux) -> None:
    """Half a character, as JSON can write it: nothing breaks here, and the account is shown."""
    file = '{"claudeAiOauth": {"accessToken": "sk-ant-oat01-x", "refreshToken": "\\ud800", "expiresAt": 4070908800000}}'
    added = await aimux.post("/accounts", {"provider": "claude", "name": "odd", "file": file}, expect=201)
    assert (added["status"], added["renewable"]) == ("healthy", True)
    assert (await aimux.send("POST", "/accounts/claude/odd/refresh"))[0] in {409, 502}
    assert "claude/odd" in await aimux.accounts()


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ('{"claudeAiOauth": {"refreshToken": "rt-secret-9"}}', "holds no access token"),
        ('{"what": "secret-9"}', "holds no Claude credential"),
        ('{"accessToken": "secret-9\\u0000"}', "characters that can't be in a header"),
        ("{secret-9", "not valid JSON"),
        ("", "is empty"),
    ],
)
async def test_a_credential_that_cant_be_used_is_refused_and_not_repeated(aimux: Aimux, file: str, says: str) -> None:
    refused = await aimux.post("/accounts", {"provider": "claude", "name": "x", "file": file}, expect=422)
    assert says in refused["detail"]
    assert "secret-9" not in json.dumps(refused) + aimux.log
    assert await aimux.accounts("?provider=claude") == ["claude/default"]


async def test_a_login_that_is_shared_is_not_overwritten(aimux: Aimux, sim: Simulator) -> None:
    vendors = aimux.state_dir.parent / "vendor.json"
    vendors.write_bytes(before := credential_file(sim.add_account("shared", "anthropic")))
    vendors.chmod(0o600)
    link = aimux.state_dir / "claude" / "shared" / ".credentials.json"
    link.parent.mkdir(mode=0o700)
    link.symlink_to(vendors)
    assert (await aimux.get("/accounts/claude/shared"))["shared_with"] == str(vendors)
    own = {"provider": "claude", "name": "shared", "api_key": "sk-ant-api03-of-my-own", "replace": True}
    assert (await aimux.post("/accounts", own, expect=201))["shared_with"] is None
    assert vendors.read_bytes() == before
    assert not link.is_symlink()


async def test_no_answer_holds_a_secret(aimux: Aimux, sim: Simulator) -> None:
    account = sim.accounts["claude"]
    for path in ("", "/disable", "/enable", "/test", "/refresh"):
        await aimux.send("POST" if path else "GET", f"/accounts/claude/default{path}")
    login = {"provider": "claude", "name": "x", "file": credential_file(account).decode(), "replace": True}
    await aimux.send("POST", "/accounts", json=login)
    await aimux.send("POST", "/accounts", json=login | {"unknown": 1})
    await aimux.send("POST", "/accounts", json=login | {"name": "/" * 100})
    await aimux.send("GET", "/accounts")
    told = "".join(aimux.answers) + aimux.log
    for secret in [*account.expiries, account.refresh_token, aimux.key]:
        assert secret is not None
        assert secret[:24] not in told
