"""What upstreams say, through a whole aimux with the built-in providers: what the client hears and who serves next."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aimux.app import App
from aimux.simulator import Simulator
from tests.e2e.process import TOKEN
from tests.soak.world import gateway

MESSAGE = {"model": "claude-sonnet-5", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}
ODD = {"origin": "app://notes"}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {TOKEN}"}) as session:
        yield session


def status_of(app: App, provider: str, account: str) -> str:
    return app.pools[provider].accounts[account].state(time.time()).status


def asked(sim: Simulator) -> list[str]:
    return [request.target.partition("?")[0] for request in sim.requests]


def renewals(sim: Simulator) -> int:
    return sum("/oauth/token" in request.target for request in sim.requests)


async def message(http: aiohttp.ClientSession, app: App, **headers: str) -> tuple[int, dict[str, Any]]:
    url = f"{app.addresses[0]}/claude/v1/messages"
    async with http.post(url, json=MESSAGE, headers={"anthropic-version": "2023-06-01", **headers}) as answer:
        return answer.status, await answer.json()


@pytest.mark.parametrize("account", ["claude", "claude-key"])
async def test_a_web_page_that_may_not_ask_parks_nobody_and_renews_nothing(
    tmp_path: Path, http: aiohttp.ClientSession, account: str
) -> None:
    async with Simulator() as sim, gateway(tmp_path, sim, [(sim.accounts[account], "default")]) as app:
        status, answer = await message(http, app, **ODD)
        assert status == 401
        assert "CORS requests must set" in answer["error"]["message"]
        assert status_of(app, "claude", "default") == "healthy"
        assert (await message(http, app))[0] == 200
        assert asked(sim) == ["/anthropic/v1/messages"] * 2


async def test_a_login_that_is_refused_once_is_proved_and_not_renewed(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with Simulator() as sim, gateway(tmp_path, sim, [(sim.accounts["claude"], "default")]) as app:
        assert (await message(http, app, **{"x-simulator": "401"}))[0] == 401
        assert asked(sim) == ["/anthropic/v1/messages", "/anthropic/v1/models"]
        assert status_of(app, "claude", "default") == "healthy"
        assert (await message(http, app))[0] == 200
        assert renewals(sim) == 0


async def test_a_login_that_is_over_is_renewed_and_the_request_served(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with Simulator() as sim, gateway(tmp_path, sim, [(sim.accounts["claude"], "default")]) as app:
        assert (await message(http, app))[0] == 200
        sim.accounts["claude"].expire()
        assert (await message(http, app))[0] == 200
        assert renewals(sim) == 1
        sim.accounts["claude"].expire()
        sim.accounts["claude"].revoke("expired")
        status, answer = await message(http, app)
        assert status in {401, 403}
        assert "OAuth token" in answer["error"]["message"]
        assert status_of(app, "claude", "default") == "parked"


async def test_a_provider_without_an_account_does_not_keep_the_others_from_being_ready(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with Simulator() as sim, gateway(tmp_path, sim, [(sim.accounts["claude"], "default")]) as app:
        async with http.get(f"{app.addresses[0]}/ready") as answer:
            told = await answer.json()
        assert (answer.status, told["ready"]) == (200, True)
        assert told["providers"]["chatgpt"] == {"ready": False, "accounts": {}}
        app.pools["claude"].accounts["default"].disable()
        async with http.get(f"{app.addresses[0]}/ready") as answer:
            assert answer.status == 503
