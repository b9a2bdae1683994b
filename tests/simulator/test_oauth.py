"""Both authorization servers: PKCE and state, consent, single-use codes."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from aimux.simulator import Simulator

from .conftest import CODEX, MESSAGE, claude, codex
from .oauth import LOOPBACK, VERIFIER, asked, authorize, exchange, tokens


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
    body: dict[str, Any] = {"grant_type": "authorization_code", "code": query["code"], "code_verifier": VERIFIER}
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


def test_tokens_are_the_same_at_each_start() -> None:
    one, two = Simulator(), Simulator()
    for name, account in one.accounts.items():
        if account.kind == "api_key":
            assert account.api_key == two.accounts[name].api_key
        else:
            assert account.refresh_token == two.accounts[name].refresh_token
