"""Refresh tokens of both authorization servers: rotation, reuse, refusals, revocation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from aimux.simulator import Simulator

from .conftest import CODEX, claude, codex
from .oauth import ANTHROPIC, authorize, exchange, refresh

REUSED: dict[str, tuple[int, Callable[[Any], bool]]] = {
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
