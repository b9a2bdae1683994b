"""The device flow."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from aimux.simulator import Simulator
from aimux.simulator.oauth import RefusedLogin, challenge

from .oauth import OPENAI, Answered, exchange


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
