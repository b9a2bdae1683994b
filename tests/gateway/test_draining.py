"""What is arriving or under way when aimux stops."""

from __future__ import annotations

import asyncio
import socket

import pytest

from .conftest import Start, Upstream, request


async def test_a_request_that_is_arriving_when_aimux_stops_is_served(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aimux.gateway.open_requests.ARRIVAL_SECONDS", 10.0)
    aimux = await start()
    whole = request(body=b'{"model":"m"}', close=False)
    idle, fresh, half_head, half_body = [await aimux.connect() for _ in range(4)]
    idle[1].write(whole)
    async with asyncio.timeout(10):
        await idle[0].readuntil(b"{}")
        half_head[1].write(whole[:30])
        half_body[1].write(whole[:-5])
        while len(aimux.app.gateway.server.connections) < 4 or not aimux.app.gateway.open:
            await asyncio.sleep(0)
        stopping = asyncio.create_task(aimux.app.stop())
        assert await idle[0].read() == b""
        half_body[1].write(whole[-5:])
        half_head[1].write(whole[30:])
        fresh[1].write(whole)
        for reader, _ in (half_body, half_head, fresh):
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 200 OK")
            assert b"connection: close" in answer
        await stopping


async def test_a_connection_that_was_accepted_as_the_sockets_were_closed_is_closed(start: Start) -> None:
    aimux = await start()
    front, loop = aimux.app.gateway.server, asyncio.get_running_loop()
    await aimux.app.stop()
    accepted, client = socket.socketpair()
    with client:
        client.setblocking(False)
        await loop.connect_accepted_socket(front, accepted)
        async with asyncio.timeout(10):
            assert await loop.sock_recv(client, 1) == b""
    assert not front.connections


async def test_a_request_that_begins_as_the_last_one_ends_is_waited_for(start: Start) -> None:
    """Of a connection that was open, but too slow to count as one whose request is on its way."""
    aimux = await start()
    whole, waits = request(body=b'{"model":"m"}'), aimux.app.gateway.open
    reader, writer = await aimux.connect()
    async with asyncio.timeout(10):
        writer.write(whole[:-5])
        while not waits:
            await asyncio.sleep(0)
        ((last, record),) = waits.items()
        waits.draining = True
        draining = asyncio.create_task(aimux.app.gateway.drained(10))
        await asyncio.sleep(0)
        waits.end(last)
        waits[last] = record  # as if it were another one
        for _ in range(10):
            await asyncio.sleep(0)
        assert not draining.done()
        writer.write(whole[-5:])
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
        await draining
