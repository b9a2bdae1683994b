"""A client steers an answer (`response.steer`): the upstream goes on with another one, for which nobody asked."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from aimux.gateway.limiting import Limiting
from aimux.limits import Who
from tests.gateway.conftest import Aimux

from .conftest import Begin, Far, access, ended, pytest_asyncio_loop_factories, socket

__all__ = ["pytest_asyncio_loop_factories"]

LANES = {"x-lanes": "1"}
CREATED = {"type": "response.created"}


def create(stream: str = "") -> str:
    return json.dumps({"type": "response.create", "model": "m"} | ({"stream_id": stream} if stream else {}))


STEER = json.dumps({"type": "response.steer", "previous_response_id": "resp_1", "input": "shorter"})


class Steered:
    """Ends each answer where it is steered, and answers that."""

    def __init__(self, stream: str = "") -> None:
        self.lane = {"stream_id": stream} if stream else {}
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def __call__(self, server: ServerConnection) -> None:
        tokens = 5
        async for message in server:
            if json.loads(message)["type"] == "response.steer":
                await self.say(server, done=1, tokens=tokens)
                tokens *= 10
            await self.say(server, **CREATED)
            await self.say(server, delta="…")
            if json.loads(message)["type"] == "response.steer":
                await self.go_on.wait()
                await self.say(server, done=1, tokens=tokens)

    async def say(self, server: ServerConnection, **told: object) -> None:
        await server.send(json.dumps(told | self.lane))


async def told(client: ClientConnection, count: int) -> None:
    async with asyncio.timeout(5):
        for _ in range(count):
            await client.recv()


def turns_of(aimux: Aimux) -> list[tuple[str, str, str]]:
    return [(line["tokens"], line["status"], line["error"]) for line in access(aimux) if line["method"] == "TURN"]


def limiting(aimux: Aimux) -> Limiting:
    return aimux.app.gateway.limiting


@pytest.mark.parametrize("stream", ["", "a"])
async def test_what_goes_on_from_a_steered_answer_has_a_record(begin: Begin, far: Far, stream: str) -> None:
    far.serve = Steered(stream)
    aimux = await begin(limits={"default": {"tokens_per_day": 10**6, "concurrent_requests": 1}})
    async with socket(aimux, headers=LANES) as client:
        await client.send(create(stream))
        await told(client, 2)
        await client.send(STEER)
        await told(client, 4)
        used = {one.limit: one.used for one in limiting(aimux).limits.standings(Who("ann"), time.time())}
        assert used == {"tokens_per_day": 55, "concurrent_requests": 0}
    await ended(aimux)
    assert turns_of(aimux) == [("0+0+0/5", "200", "-"), ("0+0+0/50", "200", "-")]


async def test_so_has_what_goes_on_behind_an_error_about_something_else(begin: Begin, far: Far) -> None:
    async def serve(server: ServerConnection) -> None:
        await server.recv()
        await server.send(json.dumps({"done": 1, "tokens": 0, "type": "error"}))
        await server.send(json.dumps({"type": "response.completed", "id": "resp_1A", "done": 1, "tokens": 5}))
        await server.send(json.dumps({"type": "response.completed", "id": "resp_1A", "done": 1, "tokens": 5}))

    far.serve = serve
    aimux = await begin()
    async with socket(aimux, headers=LANES) as client:
        await client.send(create())
        await told(client, 3)
    await ended(aimux)
    assert turns_of(aimux) == [("0+0+0/0", "200", "-"), ("0+0+0/5", "200", "-")]


async def test_until_that_is_over_the_socket_stays(begin: Begin, far: Far) -> None:
    far.serve = steered = Steered()
    steered.go_on.clear()
    aimux = await begin()
    async with socket(aimux, headers=LANES) as client:
        await client.send(create())
        await told(client, 2)
        await client.send(STEER)
        await told(client, 3)
        aimux.app.gateway.sockets.drain()
        steered.go_on.set()
        assert json.loads(await client.recv())["tokens"] == 50
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == CloseCode.GOING_AWAY
    await ended(aimux)
    assert [tokens for tokens, _, _ in turns_of(aimux)] == ["0+0+0/5", "0+0+0/50"]


async def test_nobody_gets_past_a_budget_by_steering(begin: Begin, far: Far) -> None:
    far.serve = Steered()
    aimux = await begin(limits={"default": {"tokens_per_day": 5}})
    async with socket(aimux, headers=LANES) as client:
        await client.send(create())
        await told(client, 2)
        await client.send(STEER)
        await told(client, 1)
        assert "You have used 5 of 5 tokens today" in json.loads(await client.recv())["error"]
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == CloseCode.POLICY_VIOLATION
    await ended(aimux)
    assert [(status, error) for _, status, error in turns_of(aimux)] == [("200", "-"), ("200", "rate_limited")]


async def test_a_rate_does_not_end_what_has_begun(begin: Begin, far: Far) -> None:
    far.serve = Steered()
    aimux = await begin(limits={"default": {"requests_per_minute": 1}})
    async with socket(aimux, headers=LANES) as client:
        await client.send(create())
        await told(client, 2)
        await client.send(STEER)
        await told(client, 4)
    await ended(aimux)
    assert turns_of(aimux) == [("0+0+0/5", "200", "-"), ("0+0+0/50", "200", "-")]
