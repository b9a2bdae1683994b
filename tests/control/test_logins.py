"""Logins by way of the API, driven against the simulator's OAuth servers."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import aiohttp
import pytest
from yarl import URL

from aimux.accounts.login import LIFETIME
from aimux.simulator import Simulator
from tests.control.conftest import Aimux, Start

PROVIDERS = ("claude", "chatgpt")


async def signed_in(url: str) -> URL:
    """What a person's browser is sent to after the consent page."""
    async with aiohttp.ClientSession() as browser, browser.get(url, allow_redirects=False) as page:
        assert page.status == 302, await page.text()
        return URL(page.headers["location"])


async def begun(aimux: Aimux, provider: str, **body: object) -> tuple[str, str, str]:
    """A login that a person has consented to: its state, and the code and state that came back."""
    started = await aimux.post(f"/oauth/{provider}/authorize", body or None)
    query = URL(started["authorization_url"]).query
    assert query["code_challenge_method"] == "S256"
    assert "code_verifier" not in started["authorization_url"]
    assert started["expires_in"] == LIFETIME
    back = (await signed_in(started["authorization_url"])).query
    assert back["state"] == started["state"]
    return started["state"], back["code"], back["state"]


@pytest.fixture
def clock(aimux: Aimux) -> Iterator[list[float]]:
    """Seconds that have passed for the logins under way."""
    logins, passed = aimux.app.control.api.parts.logins, [0.0]
    real = logins.clock
    logins.clock = lambda: real() + passed[0]
    yield passed
    logins.clock = real


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_login_becomes_an_account_that_serves(aimux: Aimux, sim: Simulator, provider: str) -> None:
    sim.accounts[provider].revoke("signed out everywhere")
    state, code, _ = await begun(aimux, provider)
    account = await aimux.post(f"/oauth/{provider}/exchange", {"code": code, "state": state})
    assert (account["name"], account["status"], account["kind"]) == ("default", "healthy", "oauth")
    assert account["email"] == f"{provider}@simulator.example"
    assert (await aimux.post(f"/accounts/{provider}/default/test"))["ok"]


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_what_a_person_pastes_is_understood(aimux: Aimux, provider: str) -> None:
    for form in ("{code}#{state}", " {code}#{state}\n", "http://localhost/callback?code={code}&state={state}"):
        state, code, _ = await begun(aimux, provider)
        pasted = form.format(code=code, state=state)
        await aimux.post(f"/oauth/{provider}/exchange", {"code": pasted})


async def test_another_person_gets_an_account_of_their_own(aimux: Aimux, sim: Simulator) -> None:
    sim.add_account("ben", "anthropic")
    sim.oauth_anthropic.consent.account = "ben"
    state, code, _ = await begun(aimux, "claude")
    assert (await aimux.post("/oauth/claude/exchange", {"code": code, "state": state}))["name"] == "ben"


async def test_a_name_is_reserved_before_the_person_goes(aimux: Aimux) -> None:
    refused = await aimux.post("/oauth/claude/authorize", {"account": "default"}, expect=409)
    assert refused["account"] == "claude/default"
    state, code, _ = await begun(aimux, "claude", account="default", replace=True)
    assert (await aimux.post("/oauth/claude/exchange", {"code": code, "state": state}))["name"] == "default"
    state, code, _ = await begun(aimux, "claude", account="team-1")
    assert (await aimux.post("/oauth/claude/exchange", {"code": code, "state": state}))["name"] == "team-1"


async def test_another_state_is_refused_and_the_right_one_stays_good(aimux: Aimux) -> None:
    state, code, _ = await begun(aimux, "claude")
    other, _, _ = await begun(aimux, "claude")
    for body in (
        {"code": code, "state": "made-up"},
        {"code": f"{code}#{other}", "state": state},
        {"code": code},
    ):
        refused = await aimux.post("/oauth/claude/exchange", body, expect=400)
        assert refused["type"] == "urn:aimux:login-failed"
    await aimux.post("/oauth/claude/exchange", {"code": code, "state": state})


async def test_a_state_is_good_for_its_provider_only(aimux: Aimux) -> None:
    state, code, _ = await begun(aimux, "claude")
    await aimux.post("/oauth/chatgpt/exchange", {"code": code, "state": state}, expect=400)
    await aimux.post("/oauth/claude/exchange", {"code": code, "state": state})


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_code_is_good_once(aimux: Aimux, sim: Simulator, provider: str) -> None:
    state, code, _ = await begun(aimux, provider)
    await aimux.post(f"/oauth/{provider}/exchange", {"code": code, "state": state})
    asked = sim.count(f"oauth/{'anthropic' if provider == 'claude' else 'openai'}")
    await aimux.post(f"/oauth/{provider}/exchange", {"code": code, "state": state}, expect=400)
    assert sim.count(f"oauth/{'anthropic' if provider == 'claude' else 'openai'}") == asked
    again, _, _ = await begun(aimux, provider)
    replayed = await aimux.post(f"/oauth/{provider}/exchange", {"code": code, "state": again}, expect=400)
    assert code not in str(replayed)
    assert (await aimux.get(f"/accounts/{provider}/default"))["status"] == "healthy"


async def test_a_login_that_took_too_long_is_over(aimux: Aimux, clock: list[float]) -> None:
    state, code, _ = await begun(aimux, "claude")
    clock[0] = LIFETIME + 1
    refused = await aimux.post("/oauth/claude/exchange", {"code": code, "state": state}, expect=400)
    assert "10 minutes" in refused["detail"]
    clock[0] = 0
    await aimux.post("/oauth/claude/exchange", {"code": code, "state": state}, expect=400)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_who_declines_is_not_logged_in(aimux: Aimux, sim: Simulator, provider: str) -> None:
    server = sim.oauth_anthropic if provider == "claude" else sim.oauth_openai
    server.consent.mode = "deny"
    started = await aimux.post(f"/oauth/{provider}/authorize")
    back = await signed_in(started["authorization_url"])
    assert back.query["error"] == "access_denied"
    refused = await aimux.post(f"/oauth/{provider}/exchange", {"code": str(back)}, expect=400)
    assert "declined" in refused["detail"]
    await aimux.post(f"/oauth/{provider}/exchange", {"code": "x", "state": started["state"]}, expect=400)


async def test_an_endpoint_that_moved_is_named(aimux: Aimux, sim: Simulator) -> None:
    sim.oauth_anthropic.script("404")
    state, code, _ = await begun(aimux, "claude")
    refused = await aimux.post("/oauth/claude/exchange", {"code": code, "state": state}, expect=400)
    assert "providers.claude.token_url" in refused["detail"]


async def test_a_host_that_is_not_found_keeps_its_name(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    aimux = await start(providers={"chatgpt": {"issuer": "https://auth.invalid", "token_url": None}})
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    refused = await aimux.post("/oauth/chatgpt/device", expect=400)
    assert refused["detail"] == "auth.invalid can't be found (DNS)."


async def test_only_so_many_logins_are_remembered(aimux: Aimux) -> None:
    first = await aimux.post("/oauth/claude/authorize")
    for _ in range(100):
        await aimux.post("/oauth/claude/authorize")
    assert len(aimux.app.control.api.parts.logins) == 100
    await aimux.post("/oauth/claude/exchange", {"code": "x", "state": first["state"]}, expect=400)


async def test_a_provider_without_a_login_says_so(start: Start) -> None:
    local = {"type": "compatible", "base_url": "http://127.0.0.1:9/v1"}
    aimux = await start(providers={"vllm": local})
    for path in ("authorize", "device"):
        refused = await aimux.post(f"/oauth/vllm/{path}", expect=400)
        assert refused["type"] == "urn:aimux:login-failed"
    assert (await aimux.send("POST", "/oauth/nobody/authorize"))[0] == 404


# --- the callback ----------------------------------------------------------------------------------------------------


async def test_the_callback_needs_no_key_but_the_state(aimux: Aimux) -> None:
    state, code, _ = await begun(aimux, "claude")
    nobody = {"authorization": ""}
    status, headers, page = await aimux.send("GET", f"/oauth/claude/callback?code={code}&state=x", headers=nobody)
    assert (status, headers["content-type"]) == (400, "text/html; charset=utf-8")
    status, headers, page = await aimux.send("GET", f"/oauth/claude/callback?code={code}&state={state}", headers=nobody)
    assert status == 200
    assert "claude/default is logged in" in page
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert (await aimux.send("GET", f"/oauth/claude/callback?code={code}&state={state}", headers=nobody))[0] == 400


async def test_the_callback_tells_a_refusal_and_repeats_nothing_of_a_strangers(aimux: Aimux) -> None:
    started = await aimux.post("/oauth/claude/authorize")
    script = "%3Cscript%3Ealert(1)%3C/script%3E"
    for query in (
        f"error=access_denied&state={started['state']}",
        f"error={script}&state=x",
        f"code={script}&state={script}",
        "code=x",
        "state=x",
        "",
    ):
        status, _, page = await aimux.send("GET", f"/oauth/claude/callback?{query}")
        assert status in {400, 422}, query
        assert "<script>" not in str(page)


# --- the device flow -------------------------------------------------------------------------------------------------


async def test_a_device_login_is_pending_until_it_is_confirmed(
    aimux: Aimux, sim: Simulator, clock: list[float]
) -> None:
    sim.oauth_openai.consent.mode = "ask"
    await aimux.send("DELETE", "/accounts/chatgpt/default")
    device = await aimux.post("/oauth/chatgpt/device")
    assert device["verification_url"] == f"{sim.url}/oauth/openai/codex/device"
    assert device["interval"] == 1
    poll = {"id": device["id"]}
    assert (await aimux.post("/oauth/chatgpt/device/poll", poll)) == {"status": "pending", "account": None}
    asked = sim.count("oauth/openai")
    await aimux.post("/oauth/chatgpt/device/poll", poll)
    assert sim.count("oauth/openai") == asked  # too soon: the server is not troubled
    sim.oauth_openai.decide_device(device["user_code"])
    clock[0] += 1
    done = await aimux.post("/oauth/chatgpt/device/poll", poll)
    assert (done["status"], done["account"]["name"]) == ("done", "default")
    assert (await aimux.post("/accounts/chatgpt/default/test"))["ok"]
    await aimux.post("/oauth/chatgpt/device/poll", poll, expect=400)


async def test_a_device_login_ends_when_it_is_declined_or_too_old(
    aimux: Aimux, sim: Simulator, clock: list[float]
) -> None:
    sim.oauth_openai.consent.mode = "ask"
    declined, late = [await aimux.post("/oauth/chatgpt/device") for _ in range(2)]
    sim.oauth_openai.decide_device(declined["user_code"], approve=False)
    for _ in range(2):
        await aimux.post("/oauth/chatgpt/device/poll", {"id": declined["id"]}, expect=400)
    clock[0] += late["expires_in"] + 1
    refused = await aimux.post("/oauth/chatgpt/device/poll", {"id": late["id"]}, expect=400)
    assert "in time" in refused["detail"]


async def test_a_device_that_nobody_knows_is_refused(aimux: Aimux) -> None:
    started = await aimux.post("/oauth/chatgpt/authorize")
    for name in ("x", started["state"]):
        await aimux.post("/oauth/chatgpt/device/poll", {"id": name}, expect=400)
    device = await aimux.post("/oauth/chatgpt/device")
    await aimux.post("/oauth/chatgpt/exchange", {"code": "x", "state": device["id"]}, expect=400)
