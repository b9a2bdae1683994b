"""Accounts through the API: what is shown and set, and that a change counts at once and after a restart."""

from __future__ import annotations

import pytest

from aimux.simulator import Simulator
from aimux.simulator.demo import credential_file
from tests.control.conftest import Aimux, Start, put


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
    whole = await aimux.accounts()
    assert whole == ["chatgpt/default", "claude/default", "claude/extra-0", "claude/extra-1", "claude/extra-2"]
    pages = await aimux.pages("/accounts?limit=2")
    assert [f"{one['provider']}/{one['name']}" for page in pages for one in page["items"]] == whole
    assert await aimux.accounts("?provider=chatgpt") == ["chatgpt/default"]


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
