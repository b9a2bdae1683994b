"""What models cost, the newest list, and what had no price until then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from tests.control.conftest import Aimux, Start
from tests.control.metered import filled
from tests.metering.support import NOON, record

LIST = [
    {
        "id": "anthropic",
        "name": "Anthropic",
        "api_pattern": r"https://api\.anthropic\.com",
        "models": [
            {"id": "no-such-model", "match": {"equals": "no-such-model"}, "prices": {"input_mtok": 1, "output_mtok": 2}}
        ],
    }
]
SPAN = "since=2026-11-20&until=2026-11-28"


@pytest.fixture
async def mirror() -> AsyncIterator[dict[str, Any]]:
    """A server with a list of prices: `body` is what it answers."""
    found: dict[str, Any] = {"body": json.dumps(LIST)}

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text=found["body"], content_type="application/json")

    app = web.Application()
    app.router.add_get("/data.json", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found["url"] = f"http://127.0.0.1:{runner.addresses[0][1]}/data.json"
    yield found
    await runner.cleanup()


async def price_of(aimux: Aimux, model: str) -> Any:
    return next(item for item in (await aimux.get("/prices"))["items"] if item["model"] == model)


async def test_a_model_without_a_price_gets_one_from_the_newest_list(start: Start, mirror: dict[str, Any]) -> None:
    tokens = {"model": "no-such-model", "input_tokens": 1_000_000, "output_tokens": 1_000_000}
    aimux = await filled(start, [record(usage=tokens), record(NOON - 86400, usage=tokens), record()])
    assert (await aimux.get(f"/usage?{SPAN}"))["total"]["unpriced_requests"] == 2
    async with asyncio.timeout(30):  # the packaged list is looked at in the background
        while ("claude", "no-such-model") not in aimux.app.metering.book.sources:
            await asyncio.sleep(0.02)
    updated = await aimux.post("/prices/update", {"url": mirror["url"]})
    assert updated["models"] == 2
    assert updated["source"].startswith("genai-prices of 20")
    found = await price_of(aimux, "no-such-model")
    assert (found["input"], found["output"], found["cache_read"], found["configured"]) == (1, 2, 1, [])
    assert (await price_of(aimux, "sonnet"))["configured"] == [
        "cache_read",
        "cache_write",
        "cache_write_1h",
        "input",
        "output",
        "reasoning",
    ]
    assert await aimux.post("/prices/apply", {"since": "2026-11-26"}) == {"requests": 1}
    assert await aimux.post("/prices/apply", {"since": "2026-11-20"}) == {"requests": 1}
    done = [entry["action"] for entry in (await aimux.get("/audit"))["items"]]
    assert sorted(done) == ["prices.apply", "prices.apply", "prices.update"]
    total = (await aimux.get(f"/usage?{SPAN}"))["total"]
    assert (total["unpriced_requests"], total["cost_usd"]) == (0, 6.000105)


@pytest.mark.parametrize("body", ["{}", "not JSON", '[{"id": 1}]'])
async def test_what_is_no_list_changes_nothing(aimux: Aimux, mirror: dict[str, Any], body: str) -> None:
    mirror["body"] = body
    status, _, problem = await aimux.send("POST", "/prices/update", json={"url": mirror["url"]})
    assert status == 502
    assert "list of prices" in problem["detail"]


async def test_an_address_that_nobody_serves_is_told(aimux: Aimux) -> None:
    status, _, problem = await aimux.send("POST", "/prices/update", json={"url": "http://127.0.0.1:9/x"})
    assert status == 502
    assert "http://127.0.0.1:9/x" in problem["detail"]
    assert (await aimux.send("POST", "/prices/update", json={"url": "file:///etc/passwd"}))[0] == 422
