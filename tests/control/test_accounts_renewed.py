"""Accounts that are renewed and tested through the API."""

from __future__ import annotations

from aimux.simulator import Simulator
from tests.control.conftest import Aimux


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
    account.script("404")
    nothing = await aimux.post("/accounts/claude/default/test")
    assert nothing["reason"].startswith("it answered 404 to ")
    assert "the base URL is wrong, or it has nothing there" in nothing["reason"]
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
