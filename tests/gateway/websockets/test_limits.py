"""aimux's own limits on a socket: each turn needs room, and a refused one leaves the socket open."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from aimux.limits import Who
from tests.gateway.websockets.conftest import (
    DONE,
    Begin,
    Far,
    access,
    ended,
    pytest_asyncio_loop_factories,
    socket,
    turns,
)

__all__ = ["pytest_asyncio_loop_factories"]


async def turn(client: ClientConnection, message: Any = '{"type":"response.create"}') -> str:
    """One turn: the last message of its answer."""
    await client.send(message)
    async with asyncio.timeout(5):
        while True:
            told = str(await client.recv())
            if "delta" not in told:
                return told


async def test_a_turn_without_room_is_refused_and_the_socket_stays(begin: Begin, far: Far) -> None:
    far.serve = turns
    aimux = await begin(limits={"default": {"requests_per_minute": 2}})
    async with socket(aimux) as client:
        assert await turn(client, "hi") == DONE
        assert await turn(client, "hi") == DONE
        told = json.loads(await turn(client, "hi"))
        assert told["error"].startswith("You may use 2 requests a minute; try again in ")
        assert await client.ping()
    [seen] = [far.requests]
    assert len(seen) == 1
    await ended(aimux)
    statuses = [line["status"] for line in access(aimux) if line["method"] == "TURN"]
    assert statuses == ["200", "200", "429"]
    assert len(aimux.app.gateway.limiting.limits) == 0


async def test_tokens_of_each_turn_are_counted(begin: Begin, far: Far) -> None:
    far.serve = turns
    aimux = await begin(limits={"default": {"tokens_per_day": 5000, "concurrent_requests": 1}})
    async with socket(aimux) as client:
        for _ in range(3):
            await turn(client, "hi")
        limits = aimux.app.gateway.limiting.limits
        used = {one.limit: one.used for one in limits.standings(Who("ann"), time.time())}
        assert used == {"tokens_per_day": 21, "concurrent_requests": 0}


@pytest.mark.parametrize("allowed", [True, False])
async def test_a_fragmented_turn_is_judged_before_any_of_it_goes_on(begin: Begin, far: Far, allowed: bool) -> None:
    seen: list[Any] = []

    async def note(server: Any) -> None:
        async for message in server:
            seen.append(message)
            await server.send(DONE)

    far.serve = note
    aimux = await begin(limits={"default": {"requests_per_minute": 5 if allowed else 0}})
    async with socket(aimux) as client:
        told = await turn(client, ["one ", "two ", "three"])
        assert seen == (["one two three"] if allowed else [])
        assert (told == DONE) is allowed
        if not allowed:
            assert "requests a minute" in told


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({}, "used"),
        ({"default": {"tokens_per_day": 10**6, "requests_per_minute": 9}}, "day"),
        ({"fair_share": True}, "5h"),
    ],
)
async def test_a_message_that_tells_limits_is_of_the_callers_own(
    begin: Begin, far: Far, limits: dict[str, Any], told: str
) -> None:
    far.serve = turns
    aimux = await begin(limits=limits)
    async with socket(aimux) as client:
        assert await turn(client, "hi") == DONE
        assert json.loads(await turn(client, '{"used": 0.5}')).keys() == {told}
        assert await turn(client, "hi") == DONE
        assert next(aimux.app.accounts()).limits["5h"].used == 0.5, "aimux takes notice all the same"


async def test_a_reload_holds_for_the_next_turn(begin: Begin, far: Far) -> None:
    far.serve = turns
    aimux = await begin()
    async with socket(aimux) as client:
        assert await turn(client, "hi") == DONE
        file = aimux.folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"limits": {"default": {"requests_per_minute": 0}}}))
        assert await aimux.app.reload()
        assert "requests a minute" in await turn(client, "hi")
