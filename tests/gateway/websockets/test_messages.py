"""What crosses a socket, both ways, and what it costs."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode

from tests.gateway.conftest import request

from .conftest import HANDSHAKE, Begin, Far, socket


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_messages_cross_both_ways(begin: Begin, far: Far, compression: str | None) -> None:
    async with socket(await begin(), compression=compression) as client:
        assert bool(client.protocol.extensions) is (compression is not None)
        messages: list[str | bytes] = ["", "κόσμε", "x" * 917_000, b"\x00\xff" * 500]
        for message in messages:
            await client.send(message)
            assert await client.recv() == message
    assert bool((await far.next_end()).protocol.extensions) is (compression is not None)


async def test_a_message_of_16_mib_crosses(begin: Begin) -> None:
    message = os.urandom(8 << 20).hex()
    async with socket(await begin()) as client:
        await client.send(message)
        assert await client.recv() == message


async def test_fragments_and_pings_cross(begin: Begin, far: Far) -> None:
    seen: list[tuple[int, bool]] = []

    async def watch(server: ServerConnection) -> None:
        await server.recv()
        pong = await server.ping(b"from afar")
        await pong
        async for fragment in server.recv_streaming():
            await server.send(fragment)

    far.serve = watch
    async with socket(await begin(), compression=None) as client:
        receive = client.protocol.recv_frame

        def recv_frame(frame: Frame) -> None:
            seen.append((int(frame.opcode), frame.fin))
            receive(frame)

        client.protocol.recv_frame = recv_frame  # type: ignore[method-assign]
        await client.send("ready")
        pong = await client.ping(b"anyone?")
        await pong
        await client.send(["one ", "two ", "three"])
        assert [await client.recv() for _ in range(3)] == ["one ", "two ", "three"]
    assert (Opcode.PING, True) in seen
    assert (Opcode.PONG, True) in seen


async def test_what_the_client_sends_right_behind_its_handshake_is_not_lost(begin: Begin, far: Far) -> None:
    aimux = await begin()
    got: asyncio.Queue[Any] = asyncio.Queue()

    async def collect(server: ServerConnection) -> None:
        async for message in server:
            got.put_nowait(message)

    far.serve = collect
    for size in (5, 100_000, 1_000_000):
        _, writer = await aimux.connect()
        frame = Frame(Opcode.TEXT, b"x" * size).serialize(mask=True)
        writer.write(request("/plain/v1/socket", method="GET", body=b"", headers=HANDSHAKE, close=False) + frame)
        async with asyncio.timeout(10):
            assert await got.get() == "x" * size
        writer.transport.abort()
