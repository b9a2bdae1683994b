"""Both authorization servers: PKCE and state, single-use codes, rotation, the device flow."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from aimux.simulator import Simulator
from aimux.simulator.oauth import RefusedLogin, challenge

from .conftest import CODEX, MESSAGE, claude, codex

VERIFIER = "v" * 64
ANTHROPIC = "9d1c250a-e61b-44d9-88ed-5944d1962f5e"
OPENAI = "app_EMoamEEZ73f0CkXaXp7hrann"
LOOPBACK = {"anthropic": "http://localhost:5555/callback", "openai": "http://127.0.0.1:1455/auth/callback"}
Answered = tuple[int, dict[str, Any]]


def asked(vendor: str, **change: str | None) -> dict[str, str]:
    """The query of an authorization request."""
    query = {
        "response_type": "code",
        "client_id": ANTHROPIC if vendor == "anthropic" else OPENAI,
        "redirect_uri": LOOPBACK[vendor],
        "code_challenge": challenge(VERIFIER),
        "code_challenge_method": "S256",
        "state": "st",
    } | change
    return {name: value for name, value in query.items() if value is not None}


async def authorize(
    http: aiohttp.ClientSession, sim: Simulator, vendor: str, **change: str | None
) -> tuple[int, dict[str, str], str]:
    """Status, the query of the redirect, and the page."""
    url = f"{sim.url}/oauth/{vendor}/oauth/authorize"
    async with http.get(url, params=asked(vendor, **change), allow_redirects=False) as answer:
        query = parse_qs(urlsplit(answer.headers.get("location", "")).query)
        return answer.status, {name: values[0] for name, values in query.items()}, await answer.text()


async def tokens(
    http: aiohttp.ClientSession, sim: Simulator, vendor: str, *, form: bool = False, **body: Any
) -> Answered:
    path = "v1/oauth/token" if vendor == "anthropic" else "oauth/token"
    body = {"client_id": ANTHROPIC if vendor == "anthropic" else OPENAI} | body
    sent: dict[str, Any] = {"data": body} if form else {"json": body}
    async with http.post(f"{sim.url}/oauth/{vendor}/{path}", **sent) as answer:
        return answer.status, await answer.json()


async def exchange(http: aiohttp.ClientSession, sim: Simulator, vendor: str, code: str, **change: Any) -> Answered:
    body = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": LOOPBACK[vendor],
        "code_verifier": VERIFIER,
        **({"state": "st"} if vendor == "anthropic" else {}),
    } | change
    return await tokens(http, sim, vendor, form=vendor == "openai", **body)


async def refresh(http: aiohttp.ClientSession, sim: Simulator, vendor: str, token: str, **more: Any) -> Answered:
    return await tokens(http, sim, vendor, grant_type="refresh_token", refresh_token=token, **more)


async def test_a_claude_login(sim: Simulator, http: aiohttp.ClientSession) -> None:
    status, query, _ = await authorize(http, sim, "anthropic")
    assert (status, query["state"]) == (302, "st")
    status, body = await exchange(http, sim, "anthropic", query["code"])
    assert (status, body["expires_in"], body["token_type"]) == (200, 28800, "Bearer")
    assert body["organization"]["uuid"] == sim.accounts["claude"].organization
    assert "user:inference" in body["scope"].split()
    assert sim.accounts["claude"].access_token == body["access_token"]
    async with http.post(f"{sim.url}/anthropic/v1/messages", json=MESSAGE, headers=claude(sim)) as answer:
        assert answer.status == 200
    status, again = await exchange(http, sim, "anthropic", query["code"])
    assert (status, again["error"]) == (400, "invalid_grant"), "a code is good once"


async def test_a_code_to_paste(sim: Simulator, http: aiohttp.ClientSession) -> None:
    redirect = f"{sim.url}/oauth/anthropic/oauth/code/callback"
    url = f"{sim.url}/oauth/anthropic/cai/oauth/authorize"
    async with http.get(url, params=asked("anthropic", redirect_uri=redirect)) as answer:
        shown = re.search(r'<code id="code">([^<]+)', await answer.text())
    assert shown
    code, _, state = shown[1].partition("#")
    assert state == "st"
    assert (await exchange(http, sim, "anthropic", code, redirect_uri=redirect))[0] == 200


async def test_a_setup_token(sim: Simulator, http: aiohttp.ClientSession) -> None:
    _, query, _ = await authorize(http, sim, "anthropic", scope="user:inference")
    _, body = await exchange(http, sim, "anthropic", query["code"])
    assert "refresh_token" not in body
    assert body["expires_in"] == 365 * 86400


async def test_a_chatgpt_login(sim: Simulator, http: aiohttp.ClientSession) -> None:
    _, query, _ = await authorize(http, sim, "openai")
    status, body = await exchange(http, sim, "openai", query["code"])
    assert status == 200
    assert {"id_token", "access_token", "refresh_token"} <= body.keys()
    assert "account_id" not in body
    assert body["id_token"].count(".") == 2
    url = f"{sim.url}/chatgpt/backend-api/codex/responses"
    async with http.post(url, json=CODEX, headers=codex(sim)) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("vendor", ["anthropic", "openai"])
@pytest.mark.parametrize(
    "change",
    [
        {"client_id": None},
        {"state": None},
        {"code_challenge": None},
        {"code_challenge_method": "plain"},
        {"response_type": "token"},
        {"redirect_uri": "https://evil.example/callback"},
        {"redirect_uri": "http://localhost:1455/elsewhere"},
    ],
)
async def test_a_wrong_authorization_request_is_not_redirected(
    sim: Simulator, http: aiohttp.ClientSession, vendor: str, change: dict[str, str | None]
) -> None:
    status, query, page = await authorize(http, sim, vendor, **change)
    assert (status, query) == (400, {})
    assert "Invalid authorization request" in page


@pytest.mark.parametrize("vendor", ["anthropic", "openai"])
@pytest.mark.parametrize(
    "change",
    [
        {"code_verifier": "w" * 64},
        {"redirect_uri": "http://localhost:1/callback"},
        {"client_id": "another"},
        {"wrong_code": "ac_unknown"},
        {"grant_type": "password"},
    ],
)
async def test_a_code_is_bound_to_its_request(
    sim: Simulator, http: aiohttp.ClientSession, vendor: str, change: dict[str, str]
) -> None:
    _, query, _ = await authorize(http, sim, vendor)
    code = change.get("wrong_code", query["code"])
    assert (await exchange(http, sim, vendor, code, **change))[0] == 400
    assert len(sim.accounts["claude"].families) == len(sim.accounts["chatgpt"].families) == 1


async def test_claude_wants_the_state_and_json(sim: Simulator, http: aiohttp.ClientSession) -> None:
    for state in ("", "other"):
        _, query, _ = await authorize(http, sim, "anthropic")
        assert (await exchange(http, sim, "anthropic", query["code"], state=state))[0] == 400
    status, body = await tokens(http, sim, "anthropic", form=True, grant_type="refresh_token")
    assert (status, body["error"]["message"]) == (400, "Invalid request format")


async def test_openai_wants_a_form_to_exchange(sim: Simulator, http: aiohttp.ClientSession) -> None:
    _, query, _ = await authorize(http, sim, "openai")
    body = {"grant_type": "authorization_code", "code": query["code"], "code_verifier": VERIFIER}
    assert (await tokens(http, sim, "openai", redirect_uri=LOOPBACK["openai"], **body))[0] == 400


async def test_a_code_expires(http: aiohttp.ClientSession) -> None:
    now = [1_800_000_000.0]
    async with Simulator(clock=lambda: now[0]) as sim:
        _, query, _ = await authorize(http, sim, "openai")
        now[0] += 601
        assert (await exchange(http, sim, "openai", query["code"]))[0] == 400


async def test_consent(sim: Simulator, http: aiohttp.ClientSession) -> None:
    sim.oauth_anthropic.consent.mode = "deny"
    _, query, _ = await authorize(http, sim, "anthropic")
    assert query == {"error": "access_denied", "state": "st"}
    sim.add_account("second", "anthropic")
    sim.oauth_anthropic.consent.mode = "ask"
    status, _, page = await authorize(http, sim, "anthropic")
    assert status == 200
    assert "second@simulator.example" in page
    url = f"{sim.url}/oauth/anthropic/oauth/authorize"
    chosen = {"decision": "approve", "account": "second"}
    async with http.post(url, params=asked("anthropic"), data=chosen, allow_redirects=False) as answer:
        code = parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]
    _, body = await exchange(http, sim, "anthropic", code)
    assert body["account"]["email_address"] == "second@simulator.example"
    sim.oauth_anthropic.consent.mode = "approve"
    sim.oauth_anthropic.consent.account = "nobody"
    assert (await authorize(http, sim, "anthropic"))[0] == 400


REUSED = {
    "anthropic": (400, lambda body: body["error"] == "invalid_grant"),
    "openai": (401, lambda body: body["error"]["code"] == "refresh_token_reused"),
}


@pytest.mark.parametrize(("vendor", "account"), [("anthropic", "claude"), ("openai", "chatgpt")])
async def test_refresh_tokens_rotate_and_reuse_voids_the_login(
    sim: Simulator, http: aiohttp.ClientSession, vendor: str, account: str
) -> None:
    owner = sim.accounts[account]
    old, first = owner.access_token, owner.refresh_token
    assert first
    status, body = await refresh(http, sim, vendor, first)
    assert status == 200
    assert body["access_token"] == owner.access_token != old
    assert body["refresh_token"] == owner.refresh_token != first
    assert sim.requests[-1].account == account
    expected, is_permanent = REUSED[vendor]
    status, refused = await refresh(http, sim, vendor, first)
    assert status == expected
    assert is_permanent(refused)
    # The whole family is void: its newest refresh token, and its access tokens.
    status, refused = await refresh(http, sim, vendor, body["refresh_token"])
    assert status == expected
    assert is_permanent(refused)
    async with http.get(f"{sim.url}/anthropic/v1/models", headers=claude(sim)) as answer:
        assert answer.status == (403 if vendor == "anthropic" else 200)
    # A new login lives.
    _, query, _ = await authorize(http, sim, vendor)
    assert (await exchange(http, sim, vendor, query["code"]))[0] == 200


async def test_a_forgiving_server(sim: Simulator, http: aiohttp.ClientSession) -> None:
    sim.tokens["openai"].leeway = 1
    first = sim.accounts["chatgpt"].refresh_token
    assert first
    assert [(await refresh(http, sim, "openai", first))[0] for _ in range(3)] == [200, 200, 401]


async def test_no_rotation(sim: Simulator, http: aiohttp.ClientSession) -> None:
    account = sim.accounts["claude"]
    account.on_refresh("no-rotation")
    first = account.refresh_token
    assert first
    status, body = await refresh(http, sim, "anthropic", first)
    assert status == 200
    assert "refresh_token" not in body
    assert account.refresh_token == first
    assert (await refresh(http, sim, "anthropic", first))[1]["refresh_token"] != first


async def test_scopes_do_not_grow(sim: Simulator, http: aiohttp.ClientSession) -> None:
    token = sim.accounts["claude"].refresh_token
    assert token
    status, body = await refresh(http, sim, "anthropic", token, scope="user:inference org:create_api_key")
    assert (status, body["error"]) == (400, "invalid_scope")
    assert (await refresh(http, sim, "anthropic", token, scope="user:inference user:profile"))[0] == 200


@pytest.mark.parametrize(
    ("vendor", "account", "scenario", "status"),
    [
        ("anthropic", "claude", "400", 400),
        ("anthropic", "claude", "500", 500),
        ("anthropic", "claude", "429:5", 429),
        ("openai", "chatgpt", "401", 401),
        ("openai", "chatgpt", "503:5", 503),
    ],
)
async def test_a_refused_renewal_changes_nothing(
    sim: Simulator, http: aiohttp.ClientSession, vendor: str, account: str, scenario: str, status: int
) -> None:
    owner = sim.accounts[account]
    before = (owner.access_token, owner.refresh_token)
    owner.on_refresh(scenario)
    assert before[1]
    assert (await refresh(http, sim, vendor, before[1]))[0] == status
    assert (owner.access_token, owner.refresh_token) == before
    assert (await refresh(http, sim, vendor, before[1]))[0] == 200


async def test_a_token_endpoint_that_moved_is_a_page(sim: Simulator, http: aiohttp.ClientSession) -> None:
    for vendor in ("anthropic", "openai"):
        async with http.post(f"{sim.url}/oauth/{vendor}/elsewhere", json={}) as answer:
            assert (answer.status, answer.content_type) == (404, "text/html")


async def test_an_answer_that_is_lost_after_the_rotation(sim: Simulator, http: aiohttp.ClientSession) -> None:
    account = sim.accounts["claude"]
    first = account.refresh_token
    assert first
    account.on_refresh("hang", "cut")
    url = f"{sim.url}/oauth/anthropic/v1/oauth/token"
    body = {"grant_type": "refresh_token", "refresh_token": first, "client_id": ANTHROPIC}
    with pytest.raises(TimeoutError):
        await http.post(url, json=body, timeout=aiohttp.ClientTimeout(total=0.05))
    assert account.refresh_token == first, "it never got as far"
    with pytest.raises(aiohttp.ClientPayloadError):
        async with http.post(url, json=body) as answer:
            await answer.read()
    assert account.refresh_token != first


@pytest.mark.parametrize(("reason", "code"), [("expired", "refresh_token_expired"), ("x", "refresh_token_invalidated")])
async def test_permanent_refusals_of_openai(
    sim: Simulator, http: aiohttp.ClientSession, reason: str, code: str
) -> None:
    account = sim.accounts["chatgpt"]
    account.revoke(reason)
    assert account.refresh_token
    status, body = await refresh(http, sim, "openai", account.refresh_token)
    assert (status, body["error"]["code"]) == (401, code)
    assert (await refresh(http, sim, "openai", "unknown"))[1]["error"]["code"] == "refresh_token_invalidated"


async def test_why_a_login_became_void_is_not_forgotten(sim: Simulator, http: aiohttp.ClientSession) -> None:
    account = sim.accounts["chatgpt"]
    used = account.refresh_token
    assert used
    await refresh(http, sim, "openai", used)
    await refresh(http, sim, "openai", used)
    account.revoke("expired")
    assert [family.revoked for family in account.families] == ["reused"]


async def test_revocation(sim: Simulator, http: aiohttp.ClientSession) -> None:
    account = sim.accounts["chatgpt"]
    for token in ("unknown", account.refresh_token):
        async with http.post(f"{sim.url}/oauth/openai/oauth/revoke", json={"token": token}) as answer:
            assert answer.status == 200
    url = f"{sim.url}/chatgpt/backend-api/codex/responses"
    async with http.post(url, json=CODEX, headers=codex(sim)) as answer:
        assert (await answer.json())["error"]["code"] == "token_revoked"


async def start_device(http: aiohttp.ClientSession, sim: Simulator) -> dict[str, Any]:
    async with http.post(
        f"{sim.url}/oauth/openai/api/accounts/deviceauth/usercode", json={"client_id": OPENAI}
    ) as answer:
        body: dict[str, Any] = await answer.json()
        return body


async def poll(http: aiohttp.ClientSession, sim: Simulator, device: dict[str, Any]) -> Answered:
    body = {name: device[name] for name in ("device_auth_id", "user_code")}
    async with http.post(f"{sim.url}/oauth/openai/api/accounts/deviceauth/token", json=body) as answer:
        return answer.status, await answer.json()


async def test_the_device_flow(sim: Simulator, http: aiohttp.ClientSession) -> None:
    sim.oauth_openai.consent.mode = "ask"
    device = await start_device(http, sim)
    assert device["interval"] == "5"
    assert (await poll(http, sim, device))[0] == 403
    async with http.post(
        f"{sim.url}/oauth/openai/codex/device", data={"user_code": "wrong", "decision": "approve"}
    ) as page:
        assert "unknown" in await page.text()
    page_url = f"{sim.url}/oauth/openai/codex/device"
    form = {"user_code": device["user_code"].lower(), "decision": "approve"}
    async with http.post(page_url, data=form) as page:
        assert "Done" in await page.text()
    status, body = await poll(http, sim, device)
    assert status == 200
    assert challenge(body["code_verifier"]) == body["code_challenge"]
    redirect = f"{sim.url}/oauth/openai/deviceauth/callback"
    status, issued = await exchange(
        http, sim, "openai", body["authorization_code"], code_verifier=body["code_verifier"], redirect_uri=redirect
    )
    assert (status, issued["access_token"]) == (200, sim.accounts["chatgpt"].access_token)
    assert (await poll(http, sim, device))[0] == 404, "a device code is good once"


async def test_a_device_that_is_denied_or_late(http: aiohttp.ClientSession) -> None:
    now = [1_800_000_000.0]
    async with Simulator(clock=lambda: now[0]) as sim:
        sim.oauth_openai.consent.mode = "deny"
        assert (await poll(http, sim, await start_device(http, sim)))[0] == 400
        sim.oauth_openai.consent.mode = "ask"
        device = await start_device(http, sim)
        now[0] += 901
        assert (await poll(http, sim, device))[0] == 404
        with pytest.raises(RefusedLogin):
            sim.oauth_openai.decide_device("wrong")


async def test_a_device_is_approved_by_itself_unless_somebody_is_to_ask(
    sim: Simulator, http: aiohttp.ClientSession
) -> None:
    assert (await poll(http, sim, await start_device(http, sim)))[0] == 200


def test_tokens_are_the_same_at_each_start() -> None:
    one, two = Simulator(), Simulator()
    for name, account in one.accounts.items():
        if account.kind == "api_key":
            assert account.api_key == two.accounts[name].api_key
        else:
            assert account.refresh_token == two.accounts[name].refresh_token
