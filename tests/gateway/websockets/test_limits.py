"""aimux's own limits on a socket: each turn needs room, and a refused one leaves the socket open."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from aimux.gateway.large_bodies import LARGE
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


PADDING = ["words and more of them; " * 40] * 200


@pytest.mark.parametrize(
    "message",
    [
        {"model": "dear", "input": PADDING},
        {"input": PADDING, "model": "dear"},
        {"model": "cheap", "input": PADDING, "m\\u006fdel": "dear"},
        {"model": "dear", "input": PADDING, "tools": [{"model": "cheap"}]},
    ],
    ids=["at its beginning", "at its end", "again", "and others beside it"],
)
async def test_the_model_of_a_large_message_has_its_limit(begin: Begin, far: Far, message: dict[str, Any]) -> None:
    """Codex sends up to a megabyte."""
    far.serve = turns
    aimux = await begin(limits={"default": {"models": {"dear": {"requests_per_minute": 0}}}})
    text = json.dumps(message).replace("\\\\u", "\\u")
    assert len(text) > LARGE
    async with socket(aimux) as client:
        told = json.loads(await turn(client, text))
        assert told["error"].startswith("You may use 0 requests of dear a minute")
        assert await turn(client, "hi") == DONE


async def test_a_message_whose_model_is_hidden_is_refused_where_it_counts(begin: Begin, far: Far) -> None:
    far.serve = turns
    text = '{"model": "cheap", "input": [' + "[[[0]]]," * 100_000 + '0], "model": "dear"}'
    for limits, told in (({"models": {"dear": {"requests_per_minute": 0}}}, "can't be read"), ({}, text)):
        aimux = await begin(limits={"default": {"requests_per_minute": 9, **limits}})
        async with socket(aimux) as client:
            assert told in await turn(client, text)


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
