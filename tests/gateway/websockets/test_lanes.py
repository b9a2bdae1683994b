"""Turns that are under way at the same time on one socket: side by side (`stream_id`), or asked for ahead."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection

from aimux.gateway import open_socket
from aimux.limits import Who
from tests.gateway.conftest import Aimux

from .conftest import Begin, Far, access, ended, pytest_asyncio_loop_factories, socket

__all__ = ["pytest_asyncio_loop_factories"]

LANES = {"x-lanes": "1"}


def create(stream: str = "", **more: Any) -> str:
    return json.dumps({"type": "response.create", **({"stream_id": stream} if stream else {}), **more})


async def told(client: ClientConnection, count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(5):
        return [json.loads(await client.recv()) for _ in range(count)]


def turns_of(aimux: Aimux) -> list[tuple[str, str, str]]:
    return [(line["tokens"], line["status"], line["error"]) for line in access(aimux) if line["method"] == "TURN"]


class Together:
    """Answers when so many turns were asked for: the later ones first, in pieces that alternate."""

    def __init__(self, count: int, *, echo: bool = True) -> None:
        self.count, self.echo = count, echo

    async def __call__(self, server: ServerConnection) -> None:
        asked = [json.loads(await server.recv()) for _ in range(self.count)]
        lanes = [{"stream_id": one["stream_id"]} if self.echo and "stream_id" in one else {} for one in asked]
        for lane in lanes:
            await server.send(json.dumps({"delta": "…", **lane}))
        for one, lane in reversed([*zip(asked, lanes, strict=True)]):
            await server.send(json.dumps({"done": 1, "tokens": one["tokens"], **lane}))
        async for _ in server:
            pass


async def test_turns_side_by_side_have_records_of_their_own(begin: Begin, far: Far) -> None:
    far.serve = Together(3)
    aimux = await begin(limits={"default": {"tokens_per_day": 10**6, "concurrent_requests": 3}})
    async with socket(aimux, headers=LANES) as client:
        for name, tokens in (("a", 5), ("b", 70), ("c", 900)):
            await client.send(create(name, tokens=tokens))
        assert [one.get("tokens") for one in await told(client, 6)] == [None, None, None, 900, 70, 5]
        used = {one.limit: one.used for one in aimux.app.gateway.limiting.limits.standings(Who("ann"), time.time())}
        assert used == {"tokens_per_day": 975, "concurrent_requests": 0}
    await ended(aimux)
    assert turns_of(aimux) == [("0+0+0/900", "200", "-"), ("0+0+0/70", "200", "-"), ("0+0+0/5", "200", "-")]
    ids = [line["id"].rpartition(".")[2] for line in access(aimux) if line["method"] == "TURN"]
    assert ids == ["3", "2", "1"]


@pytest.mark.parametrize("names", [("", ""), ("a", "a"), ("a", "b")])
async def test_none_is_lost_whatever_the_upstream_tells(begin: Begin, far: Far, names: tuple[str, str]) -> None:
    far.serve = Together(2, echo=False)
    aimux = await begin()
    async with socket(aimux, headers=LANES) as client:
        for name, tokens in zip(names, (5, 70), strict=True):
            await client.send(create(name, tokens=tokens))
        await told(client, 4)
    await ended(aimux)
    assert sorted(turns_of(aimux)) == [("0+0+0/5", "200", "-"), ("0+0+0/70", "200", "-")]


@pytest.mark.parametrize("names", [("", "", ""), ("a", "b", "c")])
async def test_each_needs_room(begin: Begin, far: Far, names: tuple[str, ...]) -> None:
    far.serve = Together(2)
    aimux = await begin(limits={"default": {"requests_per_minute": 2}})
    async with socket(aimux, headers=LANES) as client:
        for name in names:
            await client.send(create(name, tokens=1))
        answers = await told(client, 5)
        assert sum("You may use 2 requests a minute" in one.get("error", "") for one in answers) == 1
    await ended(aimux)
    assert sorted(status for _, status, _ in turns_of(aimux)) == ["200", "200", "429"]


async def test_messages_beside_turns_begin_none(begin: Begin, far: Far) -> None:
    far.serve = Together(4)
    aimux = await begin(limits={"default": {"requests_per_minute": 1}})
    async with socket(aimux, headers=LANES) as client:
        await client.send(json.dumps({"type": "response.cancel", "tokens": 0}))
        await client.send(json.dumps({"tokens": 3, "type": "response.create"}))
        await client.send(json.dumps({"type": "response.steer", "tokens": 0}))
        await client.send(json.dumps({"type": "response.cancel", "tokens": 3}))
        await told(client, 8)
    await ended(aimux)
    assert turns_of(aimux) == [("0+0+0/3", "200", "-")]


async def test_all_that_are_left_have_records(begin: Begin, far: Far) -> None:
    far.serve = Together(9)
    aimux = await begin(limits={"default": {"concurrent_requests": 9}})
    async with socket(aimux, headers=LANES) as client:
        for name in "ab":
            await client.send(create(name, tokens=1))
        await client.ping()
        while len(aimux.app.gateway.limiting.limits) < 2:
            await asyncio.sleep(0.001)
        client.transport.abort()
    await ended(aimux)
    async with asyncio.timeout(5):
        while len(turns_of(aimux)) < 2:  # records come behind the socket's end
            await asyncio.sleep(0.001)
    assert [error for _, _, error in turns_of(aimux)] == ["client_gone"] * 2
    assert not len(aimux.app.gateway.limiting.limits)


async def test_there_may_be_so_many(begin: Begin, far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_socket, "MOST_TURNS", 2)
    far.serve = Together(2)
    aimux = await begin()
    async with socket(aimux, headers=LANES) as client:
        for name in "abc":
            await client.send(create(name, tokens=1))
        answers = await told(client, 5)
        assert any("2 turns are under way on this socket" in one.get("error", "") for one in answers)
        await client.send(create("d", tokens=1))
    await ended(aimux)
