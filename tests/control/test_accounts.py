"""Accounts through the API: what is shown, what changes, and that a change counts at once and after a restart."""

from __future__ import annotations

import asyncio
import json
import stat

import pytest

from aimux.gateway.deposits import Deposit
from aimux.simulator import Simulator
from aimux.simulator.demo import credential_file
from tests.control.conftest import Aimux, Start, put


async def accounts(aimux: Aimux, query: str = "") -> list[str]:
    return [f"{a['provider']}/{a['name']}" for a in (await aimux.get(f"/accounts{query}"))["items"]]


async def test_a_list_tells_who_they_are_and_how_they_fare(aimux: Aimux) -> None:
    assert (await aimux.message())[0] == 200
    page = await aimux.get("/accounts")
    assert page["next"] is None
    chatgpt, claude = page["items"]
    assert (chatgpt["provider"], chatgpt["kind"], chatgpt["plan"]) == ("chatgpt", "oauth", "plus")
    assert (claude["name"], claude["status"], claude["renewable"]) == ("default", "healthy", True)
    assert claude["expires_at"].endswith("Z")
    assert claude["last_used"] is not None
    assert chatgpt["last_used"] is None
    assert {window["name"] for window in claude["limits"]} >= {"5h", "7d"}


async def test_pages_follow_one_another(aimux: Aimux, sim: Simulator) -> None:
    for number in range(3):
        put(aimux.state_dir, "claude", credential_file(sim.add_account(f"c{number}", "anthropic")), f"extra-{number}")
    whole = await accounts(aimux)
    assert whole == ["chatgpt/default", "claude/default", "claude/extra-0", "claude/extra-1", "claude/extra-2"]
    seen, after = [], ""
    while True:
        page = await aimux.get(f"/accounts?limit=2{after}")
        seen += [f"{a['provider']}/{a['name']}" for a in page["items"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert seen == whole
    assert await accounts(aimux, "?provider=chatgpt") == ["chatgpt/default"]


async def test_a_file_that_somebody_put_there_or_took_away_is_seen_at_once(aimux: Aimux, sim: Simulator) -> None:
    path = put(aimux.state_dir, "claude", credential_file(sim.add_account("other", "anthropic")), "other")
    assert (await aimux.get("/accounts/claude/other"))["status"] == "healthy"
    path.unlink()
    assert (await aimux.send("GET", "/accounts/claude/other"))[0] == 404


async def test_disabling_counts_at_once_and_outlives_a_restart(start: Start) -> None:
    aimux = await start()
    assert (await aimux.post("/accounts/claude/default/disable"))["status"] == "disabled"
    assert (await aimux.message())[0] == 503
    again = await start()
    shown = await again.get("/accounts/claude/default")
    assert (shown["status"], shown["remedy"]) == ("disabled", "aimux accounts enable claude/default")
    assert (await again.post("/accounts/claude/default/enable"))["status"] == "healthy"
    assert (await again.message())[0] == 200


async def test_weight_priority_and_groups_are_set_at_once_and_outlive_a_restart(start: Start) -> None:
    users = [{"name": "ann", "token": "token-of-ann-0123456789"}]
    aimux = await start(users=users)
    ann = {"authorization": "Bearer token-of-ann-0123456789"}
    assert (await aimux.message(**ann))[0] == 200
    await aimux.post("/groups", {"name": "ci", "reserved": True}, expect=201)
    path, change = "/accounts/claude/default", {"weight": 2.5, "groups": ["ci", "ci"]}
    _, _, changed = await aimux.send("PATCH", path, json=change)
    about = ("weight", "priority", "groups", "serves", "settings_configured")
    assert [changed[field] for field in about] == [2.5, 0, ["ci"], "ci alone", False]
    assert (await aimux.message(**ann))[0] == 503
    _, _, changed = await aimux.send("PATCH", path, json={"priority": -1})
    assert (changed["weight"], changed["priority"], changed["groups"]) == (2.5, -1, ["ci"])
    last, first = (await aimux.get("/audit?target=account:claude/default"))["items"]
    assert (last["action"], last["before"], last["after"]) == ("account.change", {"priority": 0}, {"priority": -1})
    assert (first["before"], first["after"]) == ({"weight": 1, "groups": []}, {"weight": 2.5, "groups": ["ci"]})
    await aimux.post(f"{path}/rename", {"name": "team"})

    again = await start(users=users)
    shown = await again.get("/accounts/claude/team")
    assert (shown["weight"], shown["priority"], shown["serves"]) == (2.5, -1, "ci alone")
    assert (await again.message(**ann))[0] == 503
    await again.send("PATCH", "/accounts/claude/team", json={"groups": []})
    assert (await again.message(**ann))[0] == 200


async def test_what_the_configuration_says_of_an_account_is_changed_there(start: Start) -> None:
    aimux = await start()
    assert (await aimux.send("PATCH", "/accounts/claude/default", json={"weight": 5}))[0] == 200
    configured = {"claude": {"accounts": {"default": {"weight": 3}}}, "chatgpt": {"api_key": "sk-proj-of-the-file"}}
    aimux = await start(providers=configured)
    shown = await aimux.get("/accounts/claude/default")
    assert (shown["weight"], shown["settings_configured"]) == (3, True)
    for account in ("claude/default", "chatgpt/api-key"):
        status, _, problem = await aimux.send("PATCH", f"/accounts/{account}", json={"weight": 5})
        assert (status, problem["type"], problem["account"]) == (409, "urn:aimux:configured", account)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"weight": 0}, 422),
        ({"weight": "much"}, 422),
        ({"priority": 1.5}, 422),
        ({"price_factor": 0}, 422),
        ({"groups": ["nobody-added-it"]}, 404),
    ],
)
async def test_what_an_account_can_not_have_changes_nothing(aimux: Aimux, body: dict[str, object], status: int) -> None:
    assert (await aimux.send("PATCH", "/accounts/claude/default", json=body))[0] == status
    shown = await aimux.get("/accounts/claude/default")
    assert (shown["weight"], shown["priority"], shown["groups"]) == (1, 0, [])


# --- adding ----------------------------------------------------------------------------------------------------------


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
    assert "claude/odd" in await accounts(aimux)


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
    assert await accounts(aimux, "?provider=claude") == ["claude/default"]


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


# --- renaming and removing -------------------------------------------------------------------------------------------


async def test_a_rename_keeps_the_state(aimux: Aimux) -> None:
    await aimux.message()
    stored = aimux.app.deposits.deposits
    stored.keep("claude", "default", ["file_1"], "ann")
    await aimux.post("/accounts/claude/default/disable")
    before = await aimux.get("/accounts/claude/default")
    after = await aimux.post("/accounts/claude/default/rename", {"name": "ann@example.com"})
    assert after == before | {"name": "ann@example.com", "remedy": "aimux accounts enable claude/ann@example.com"}
    assert await accounts(aimux, "?provider=claude") == ["claude/ann@example.com"]
    assert stored.find("claude", ["file_1"]) == Deposit("ann@example.com", "ann")
    assert (aimux.state_dir / "claude" / "ann@example.com" / ".credentials.json").is_file()
    await aimux.post("/accounts/claude/ann%40example.com/enable")
    assert (await aimux.message())[0] == 200


async def test_a_name_that_is_taken_is_not_given_twice(aimux: Aimux, sim: Simulator) -> None:
    put(aimux.state_dir, "claude", credential_file(sim.add_account("ann", "anthropic")), "ann")
    refused = await aimux.post("/accounts/claude/ann/rename", {"name": "default"}, expect=409)
    assert (refused["type"], refused["detail"]) == (
        "urn:aimux:conflict",
        "There is an account claude/default already.",
    )
    await aimux.post("/accounts/claude/ann/rename", {"name": "ann"}, expect=409)
    for name in ("", "../x", ".x", "a b", "a" * 65):
        await aimux.post("/accounts/claude/ann/rename", {"name": name}, expect=422)
    assert await accounts(aimux, "?provider=claude") == ["claude/ann", "claude/default"]


async def test_a_rename_does_not_slip_out_of_its_group(start: Start) -> None:
    grouped = {"claude": {"accounts": {"default": {"groups": ["team"]}, "ready": {"groups": ["team"]}}}}
    aimux = await start(providers=grouped)
    refused = await aimux.post("/accounts/claude/default/rename", {"name": "free"}, expect=409)
    assert "providers.claude.accounts.free" in refused["remedy"]
    assert (await aimux.post("/accounts/claude/default/rename", {"name": "ready"}))["groups"] == ["team"]


async def test_what_is_in_the_configuration_is_changed_there(start: Start, sim: Simulator) -> None:
    aimux = await start(providers={"claude": {"api_key": sim.accounts["claude-key"].api_key}})
    shown = await aimux.get("/accounts/claude/api-key")
    assert (shown["configured"], shown["status"]) == (True, "healthy")
    for method, path, body in (
        ("POST", "/api-key/rename", {"name": "x"}),
        ("DELETE", "/api-key", None),
        ("POST", "/api-key/refresh", None),
    ):
        assert (await aimux.send(method, f"/accounts/claude{path}", json=body))[0] == 409
    taken = {"provider": "claude", "name": "api-key", "api_key": "sk-ant-api03-x", "replace": True}
    assert (await aimux.post("/accounts", taken, expect=409))["type"] == "urn:aimux:configured"
    assert (await aimux.post("/accounts/claude/api-key/disable"))["status"] == "disabled"


async def test_a_removed_account_is_gone_from_the_disk_and_the_choice(aimux: Aimux) -> None:
    assert (await aimux.send("DELETE", "/accounts/claude/default"))[0] == 204
    assert not (aimux.state_dir / "claude" / ".credentials.json").exists()
    assert (await aimux.send("DELETE", "/accounts/claude/default"))[0] == 404
    assert (await aimux.message())[0] == 503


async def test_a_rename_waits_for_a_renewal_and_takes_its_result_along(aimux: Aimux, sim: Simulator) -> None:
    account = sim.accounts["claude"]
    before = account.refresh_token
    account.on_refresh("hold")
    renewal = asyncio.create_task(aimux.post("/accounts/claude/default/refresh"))
    await sim.wait_for_held()
    rename = asyncio.create_task(aimux.post("/accounts/claude/default/rename", {"name": "ann"}))
    # It can't be done before the renewal is: both need the account's lock, and the renewal has it.
    done, _ = await asyncio.wait({rename}, timeout=0.05)
    assert not done
    sim.release()
    await asyncio.gather(renewal, rename)
    saved = json.loads((aimux.state_dir / "claude" / "ann" / ".credentials.json").read_bytes())["claudeAiOauth"]
    assert saved["refreshToken"] == account.refresh_token != before
    assert not (aimux.state_dir / "claude" / ".credentials.json").exists()
    assert (await aimux.message())[0] == 200
    assert (await aimux.post("/accounts/claude/ann/refresh"))["status"] == "healthy"


async def test_a_removal_waits_for_a_renewal_and_nothing_comes_back(aimux: Aimux, sim: Simulator) -> None:
    sim.accounts["claude"].on_refresh("hold")
    renewal = asyncio.create_task(aimux.send("POST", "/accounts/claude/default/refresh"))
    await sim.wait_for_held()
    removal = asyncio.create_task(aimux.send("DELETE", "/accounts/claude/default"))
    sim.release()
    await renewal
    assert (await removal)[0] == 204
    assert await accounts(aimux, "?provider=claude") == []
    assert not (aimux.state_dir / "claude" / ".credentials.json").exists()


async def test_a_caller_that_leaves_does_not_stop_what_it_began(aimux: Aimux, sim: Simulator) -> None:
    account = sim.accounts["claude"]
    account.on_refresh("hold")
    renewal = asyncio.create_task(aimux.post("/accounts/claude/default/refresh"))
    await sim.wait_for_held()
    renewal.cancel()
    await asyncio.wait({renewal})
    sim.release()
    await aimux.app.control.api.close()
    saved = json.loads((aimux.state_dir / "claude" / ".credentials.json").read_bytes())["claudeAiOauth"]
    assert saved["refreshToken"] == account.refresh_token


# --- renewing and testing --------------------------------------------------------------------------------------------


async def test_a_renewal_on_request_brings_new_tokens(aimux: Aimux, sim: Simulator) -> None:
    for provider, owner in (("claude", "claude"), ("chatgpt", "chatgpt")):
        before = sim.accounts[owner].access_token
        assert (await aimux.post(f"/accounts/{provider}/default/refresh"))["status"] == "healthy"
        assert sim.accounts[owner].access_token != before
        account = aimux.app.pools[provider].accounts["default"]
        assert account.credential is not None
        assert account.credential.secret == sim.accounts[owner].access_token


async def test_a_renewal_before_its_time_that_is_refused_or_fails_leaves_it_serving(
    aimux: Aimux, sim: Simulator
) -> None:
    sim.accounts["claude"].on_refresh("502")
    failed = await aimux.post("/accounts/claude/default/refresh", expect=502)
    assert failed["type"] == "urn:aimux:refresh-unavailable"
    assert (await aimux.get("/accounts/claude/default"))["status"] == "healthy"
    assert (await aimux.message())[0] == 200
    sim.accounts["claude"].on_refresh("400")
    refused = await aimux.post("/accounts/claude/default/refresh", expect=409)
    assert "aimux login claude --account default" in refused["remedy"]
    left = await aimux.get("/accounts/claude/default")
    assert left["status"] == "healthy"
    assert "the refresh token was refused" in left["reason"]
    assert left["remedy"] == refused["remedy"]
    assert (await aimux.message())[0] == 200


async def test_there_is_nothing_to_renew_in_a_key(aimux: Aimux) -> None:
    await aimux.post("/accounts", {"provider": "claude", "name": "key", "api_key": "sk-ant-api03-key"}, expect=201)
    refused = await aimux.post("/accounts/claude/key/refresh", expect=409)
    assert refused["type"] == "urn:aimux:not-renewable"
    assert (await aimux.get("/accounts/claude/key"))["status"] == "healthy"


async def test_the_real_call_shows_what_a_client_would_meet(aimux: Aimux, sim: Simulator) -> None:
    for provider in ("claude", "chatgpt"):
        tested = await aimux.post(f"/accounts/{provider}/default/test")
        assert (tested["ok"], tested["status"]) == (True, 200), tested
    account = sim.accounts["claude"]
    account.script("429:600")
    limited = await aimux.post("/accounts/claude/default/test")
    assert (limited["ok"], limited["status"], limited["account"]["status"]) == (False, 429, "cooling")
    account.script("drop", "drop")  # a reused connection that breaks is replaced once
    gone = await aimux.post("/accounts/claude/default/test")
    assert (gone["ok"], gone["status"]) == (False, None)
    assert gone["reason"]
    account.script("529")
    assert not (await aimux.post("/accounts/claude/default/test"))["ok"]
    assert aimux.app.pools["claude"].accounts["default"].in_flight == 0


async def test_a_refused_credential_is_renewed_once_before_a_test_gives_up(aimux: Aimux, sim: Simulator) -> None:
    account = sim.accounts["claude"]
    account.script("401")
    before = account.access_token
    assert (await aimux.post("/accounts/claude/default/test"))["ok"]
    assert account.access_token != before
    account.script("401", "401")
    parked = await aimux.post("/accounts/claude/default/test")
    assert (parked["ok"], parked["account"]["status"]) == (False, "parked")


async def test_a_test_leaves_a_disabled_account_disabled(aimux: Aimux) -> None:
    await aimux.post("/accounts/claude/default/disable")
    tested = await aimux.post("/accounts/claude/default/test")
    assert (tested["ok"], tested["account"]["status"]) == (True, "disabled")


def opencode(sim: Simulator) -> dict[str, dict[str, object]]:
    """Its auth.json, with a login of each vendor that are not in aimux yet, and what no provider takes."""
    claude = json.loads(credential_file(sim.add_account("kept-claude", "anthropic")))["claudeAiOauth"]
    chatgpt = json.loads(credential_file(sim.add_account("kept-chatgpt", "openai")))["tokens"]
    return {
        "anthropic": {"type": "oauth", "access": claude["accessToken"], "refresh": claude["refreshToken"]},
        "openai": {"type": "oauth", "access": chatgpt["access_token"], "refresh": chatgpt["refresh_token"]},
        "github-copilot": {"type": "oauth", "access": "tid=secret-9", "refresh": "ghu_secret-9"},
    }


async def test_logins_that_another_program_keeps_become_accounts(aimux: Aimux, sim: Simulator) -> None:
    file = json.dumps(opencode(sim))
    done = await aimux.post("/accounts/import", {"file": file, "check": True}, expect=201)
    assert [(one["provider"], one["status"]) for one in done["items"]] == [
        ("claude", "healthy"),
        ("chatgpt", "healthy"),
    ]
    assert [one["where"] for one in done["left"]] == ["github-copilot"]
    assert "secret-9" not in json.dumps(done)
    # Once more: what is here may have been renewed since, and what comes again may be older.
    status, _, told = await aimux.send("POST", "/accounts/import", json={"file": file})
    assert (status, told["detail"]) == (422, "No login in this file can be taken.")
    full = f"claude/{done['items'][0]['name']}"
    assert told["errors"][0] == {"where": "anthropic", "message": f"There is an account {full} already."}
    audit = (await aimux.get("/audit"))["items"]
    assert [one["target"] for one in audit if one["action"] == "account.add"] == [
        f"account:{one['provider']}/{one['name']}" for one in reversed(done["items"])
    ]


async def test_only_one_providers_are_taken_of_a_file(aimux: Aimux, sim: Simulator) -> None:
    body = {"file": json.dumps(opencode(sim)), "provider": "chatgpt"}
    done = await aimux.post("/accounts/import", body, expect=201)
    assert [one["provider"] for one in done["items"]] == ["chatgpt"]
    assert (await aimux.send("POST", "/accounts/import", json=body | {"provider": "cloud"}))[0] == 404


async def test_what_holds_no_login_says_so(aimux: Aimux) -> None:
    status, _, told = await aimux.send("POST", "/accounts/import", json={"file": "secret-of-somebody-9"})
    assert status == 422
    assert [one["where"] for one in told["errors"]] == ["body.file"]
    assert "secret-of" not in json.dumps(told)


async def test_a_key_fits_several_providers_and_has_to_be_said_whose_it_is(aimux: Aimux) -> None:
    key = json.dumps({"api_key": "a-key-of-nobody-knows-whom"})
    status, _, told = await aimux.send("POST", "/accounts/import", json={"file": key})
    assert status == 422
    assert told["errors"][0]["message"].endswith(": name its provider.")
    done = await aimux.post("/accounts/import", {"file": key, "provider": "claude"}, expect=201)
    assert done["items"][0]["kind"] == "api_key"


async def test_a_login_is_taken_out_of_the_file_in_which_another_program_keeps_it(aimux: Aimux, sim: Simulator) -> None:
    kept = opencode(sim)
    body = {"provider": "claude", "name": "kept", "file": json.dumps(kept)}
    assert (await aimux.post("/accounts", body, expect=201))["status"] == "healthy"
    two = {"accounts": [{"type": "claude", "access_token": f"sk-ant-oat01-login-{number}"} for number in range(2)]}
    status, _, told = await aimux.send("POST", "/accounts", json=body | {"name": "two", "file": json.dumps(two)})
    assert (status, told["detail"]) == (422, "This file has 2 logins of claude.")
