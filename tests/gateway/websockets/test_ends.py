"""How sockets end: close codes, peers that vanish."""

from __future__ import annotations

import asyncio

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosedError

from tests.gateway.conftest import request

from .conftest import HANDSHAKE, Begin, Far, access, ended, socket


@pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4999])
async def test_close_codes_cross_both_ways(begin: Begin, far: Far, code: int) -> None:
    aimux = await begin()
    async with socket(aimux) as client:
        await client.close(code, "the client's reason")
    server = await far.next_end()
    assert (server.close_code, server.close_reason) == (code, "the client's reason")

    async def leave(server: ServerConnection) -> None:
        await server.close(code, "the upstream's reason")

    far.serve = leave
    async with socket(aimux) as client:
        await client.wait_closed()
        assert (client.close_code, client.close_reason) == (code, "the upstream's reason")
    await ended(aimux)
    assert [line["status"] for line in access(aimux)] == ["101", "101"]
    assert [line["error"] for line in access(aimux)] == ["-", "-"]


async def test_an_upstream_that_vanishes_is_told_without_a_close_frame(begin: Begin, far: Far) -> None:
    async def vanish(server: ServerConnection) -> None:
        await server.send(await server.recv())
        server.transport.abort()

    far.serve = vanish
    aimux = await begin()
    async with socket(aimux) as client:
        await client.send("last words")
        assert await client.recv() == "last words"
        with pytest.raises(ConnectionClosedError):
            await client.recv()
        assert client.close_code == 1006
    await ended(aimux)
    assert access(aimux)[-1]["error"] == "upstream_lost"
    assert "connection broke off" in aimux.log


async def test_a_client_that_vanishes_in_a_turn_takes_the_upstream_along(begin: Begin, far: Far) -> None:
    async def hold(server: ServerConnection) -> None:
        await server.recv()
        client.transport.abort()

    far.serve = hold
    aimux = await begin()
    async with socket(aimux) as client:
        await client.send("a question")
        server = await far.next_end()
    assert server.close_code == 1006
    await ended(aimux)
    assert access(aimux)[-1]["error"] == "client_gone"


async def test_a_slow_client_slows_the_upstream_down(begin: Begin, far: Far) -> None:
    sent = 0
    stalled = asyncio.Event()

    async def pour(server: ServerConnection) -> None:
        nonlocal sent
        while True:
            try:
                async with asyncio.timeout(0.5):
                    await server.send(b"x" * 900_000)
            except TimeoutError:
                stalled.set()
                await server.wait_closed()
                return
            sent += 900_000

    far.serve = pour
    aimux = await begin()
    reader, writer = await aimux.connect()
    writer.write(request("/plain/v1/socket", method="GET", body=b"", headers=HANDSHAKE, close=False))
    async with asyncio.timeout(30):
        await stalled.wait()
    assert 0 < sent < 40_000_000, "the kernel's buffers hold some megabytes, aimux a frame"
    assert await reader.readline() == b"HTTP/1.1 101 Switching Protocols\r\n"
    writer.transport.abort()
    await ended(aimux)
