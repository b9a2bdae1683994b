"""Sockets when the process stops."""

from __future__ import annotations

import asyncio

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.gateway.conftest import Aimux

from .conftest import DONE, Begin, Far, access, ended, socket, turns


async def test_sockets_at_rest_are_closed_at_once_when_aimux_stops(begin: Begin, far: Far) -> None:
    far.serve = turns
    aimux = await begin()
    async with socket(aimux) as client:
        await client.send("question")
        await client.recv()
        await client.recv()
        await drain(aimux, 30)
        await client.wait_closed()
        assert client.close_code == 1001
    assert (await far.next_end()).close_code == 1001


async def drain(aimux: Aimux, seconds: float) -> None:
    aimux.app.gateway.open.draining = True
    await aimux.app.gateway.drained(seconds)


async def test_a_turn_is_finished_before_aimux_stops(begin: Begin, far: Far) -> None:
    far.serve = turns
    aimux = await begin()
    async with socket(aimux) as client:
        await client.send("long")
        await client.recv()
        stopping = asyncio.create_task(drain(aimux, 30))
        with pytest.raises(InvalidStatus) as refused:
            async with socket(aimux):
                pass
        assert refused.value.response.status_code == 503
        await client.send("go on")
        assert await client.recv() == DONE
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1001
        await stopping


async def test_a_turn_that_takes_too_long_is_cut_off(begin: Begin, far: Far) -> None:
    far.serve = turns
    aimux = await begin(drain_timeout="100ms")
    async with socket(aimux) as client:
        await client.send("long")
        await client.recv()
        await drain(aimux, 0.05)
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1012


async def test_a_socket_without_a_meter_is_cut_off_only_in_the_end(begin: Begin, far: Far) -> None:
    aimux = await begin()
    async with socket(aimux, headers={"x-unmetered": "1"}) as client:
        await client.send("x")
        await client.recv()
        stopping = asyncio.create_task(drain(aimux, 0.1))
        await client.send("still here")
        assert await client.recv() == "still here"
        await stopping
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1012
    await ended(aimux)
    assert access(aimux)[0]["tokens"] == "-"


async def test_stopping_closes_what_is_left(begin: Begin, far: Far) -> None:
    far.serve = turns
    aimux = await begin(drain_timeout="50ms")
    async with socket(aimux) as client:
        await client.send("long")
        await client.recv()
        await aimux.app.stop()
        await client.wait_closed()
        assert client.close_code == 1012
    assert (await far.next_end()).close_code == 1001
