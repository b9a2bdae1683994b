"""Whoever may no longer call is stopped in the middle of whatever he does; nobody else notices."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from aimux.gateway.auth import ENDED
from aimux.gateway.guesses import FREE
from aimux.http.framing import chunk
from tests.gateway.conftest import TOKEN, Aimux, Start, Upstream, request
from tests.gateway.websockets.conftest import DONE, Begin, Far, access, begin, ended, far, socket, turns
from tests.waiting import until

from .answers import EVENT, SSE

__all__ = ["begin", "far"]

BOB = "bobs-token-0123456789abcdef"
USERS = [{"name": "ann", "token": TOKEN}, {"name": "bob", "token": BOB}]


async def without(aimux: Aimux, name: str = "ann", **changes: Any) -> None:
    """The configuration is read again, in which this user is no more."""
    file = aimux.folder / "config.json"
    settings = json.loads(file.read_text())
    settings["users"] = [user for user in settings["users"] if user["name"] != name]
    file.write_text(json.dumps(settings | changes))
    assert await aimux.app.reload()


async def streams(aimux: Aimux, upstream: Upstream, *tokens: str) -> list[asyncio.StreamReader]:
    """Open streams, with their first event read."""
    readers = []
    for token in tokens:
        reader, writer = await aimux.connect()
        writer.write(request(close=False, token=token))
        async with asyncio.timeout(10):
            await reader.readuntil(b"\r\n\r\n")
            await reader.readuntil(EVENT)
        readers.append(reader)
    return readers


@pytest.fixture
def holding(upstream: Upstream) -> asyncio.Event:
    """Upstreams that send an event, and the rest only when this is set."""
    go_on = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(SSE + chunk(EVENT))
        ending = asyncio.create_task(reader.read())
        await asyncio.wait([ending, going := asyncio.create_task(go_on.wait())], return_when="FIRST_COMPLETED")
        going.cancel()
        writer.write(chunk(b'data: {"done":1}\n\n') + b"0\r\n\r\n")
        await ending

    upstream.script = script
    return go_on


async def test_an_open_stream_ends_with_the_protocols_error(
    start: Start, upstream: Upstream, holding: asyncio.Event
) -> None:
    aimux = await start(users=USERS)
    anns, bobs = await streams(aimux, upstream, TOKEN, BOB)
    await without(aimux)
    async with asyncio.timeout(10):
        told = await anns.read()
        await upstream.until(lambda: upstream.open == 1)
        holding.set()
        rest = await bobs.readuntil(b"0\r\n\r\n")
    assert b"event: error\ndata: " in told
    assert ENDED.encode() in told
    assert not told.endswith(b"0\r\n\r\n"), "it must not look whole"
    assert b"error" not in rest
    assert "user=ann" in aimux.log
    assert "error=unauthorized" in aimux.log


async def test_so_does_one_that_nobody_reads(start: Start, upstream: Upstream) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(SSE)
        while True:
            writer.write(chunk(EVENT * 1000))
            await writer.drain()

    upstream.script = script
    aimux = await start(users=USERS)
    reader, writer = await aimux.connect()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(request(close=False))
    (connection,) = await connections(aimux)
    await until(lambda: connection.full)
    await without(aimux)
    await upstream.until(lambda: upstream.open == 0)
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    async with asyncio.timeout(10):
        assert not (await reader.read()).endswith(b"0\r\n\r\n")


async def test_nor_does_who_waited_behind_wrong_guesses(start: Start, upstream: Upstream) -> None:
    aimux = await start(users=USERS)
    guesses = aimux.app.gateway.setup.authentication.guesses
    for _ in range(FREE):
        guesses.look("127.0.0.1", time.monotonic())
    entered, come = asyncio.Event(), asyncio.Event()

    async def waiting(address: str) -> bool:
        entered.set()
        await come.wait()
        guesses.right(address, b"another", looked=True)  # there is a look again
        return True

    guesses.turn = waiting  # type: ignore[method-assign]
    reader, writer = await aimux.connect()
    writer.write(request())
    async with asyncio.timeout(10):
        await entered.wait()
        await without(aimux)
        come.set()
        told = await reader.read()
    assert told.startswith(b"HTTP/1.1 401 ")
    assert ENDED.encode() in told
    assert not upstream.requests


async def connections(aimux: Aimux) -> list[Any]:
    await until(lambda: aimux.app.gateway.server.connections)
    return list(aimux.app.gateway.server.connections)


async def test_an_answer_of_a_known_length_breaks_off(start: Start, upstream: Upstream) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 20\r\n\r\n{}")
        await reader.read()

    upstream.script = script
    aimux = await start(users=USERS)
    reader, writer = await aimux.connect()
    writer.write(request(close=False))
    async with asyncio.timeout(10):
        await reader.readuntil(b"\r\n\r\n{}")
        await without(aimux)
        assert await reader.read() == b""


@pytest.mark.parametrize("sent", ["all of it", "a part of its body"])
async def test_a_request_without_an_answer_gets_one(start: Start, upstream: Upstream, sent: str) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        await reader.read()

    upstream.script = script
    aimux = await start(users=USERS)
    reader, writer = await aimux.connect()
    whole = request(close=False)
    writer.write(whole if sent == "all of it" else whole[:-3])
    if sent == "all of it":
        await upstream.until(lambda: len(upstream.requests) == 1)
    else:
        await until(lambda: aimux.app.gateway.open)
    await without(aimux)
    async with asyncio.timeout(10):
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert b"x-should-retry: false" in answer
        assert ENDED.encode() in await reader.readuntil(b"}")
    await upstream.until(lambda: upstream.open == 0)


async def test_with_the_first_user_anonymous_streams_end(
    start: Start, upstream: Upstream, holding: asyncio.Event
) -> None:
    aimux = await start(users=[], allow_anonymous=True)
    (reader,) = await streams(aimux, upstream, "placeholder-of-a-client")
    await without(aimux, request_timeout="1m")
    assert len(aimux.app.gateway.open) == 1, "other changes stop nobody"
    file = aimux.folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"users": USERS}))
    assert await aimux.app.reload()
    async with asyncio.timeout(10):
        assert b"aimux has users now" in await reader.read()


async def test_sockets_are_closed_with_the_protocols_error(begin: Begin, far: Far) -> None:
    far.serve = turns
    aimux = await begin(users=USERS)
    async with socket(aimux) as working, socket(aimux) as resting, socket(aimux, token=BOB) as bobs:
        await resting.send("question")
        assert await resting.recv() != DONE
        assert await resting.recv() == DONE
        await working.send("long")
        await working.recv()
        await without(aimux)
        for client in (working, resting):
            async with asyncio.timeout(10):
                assert json.loads(await client.recv()) == {"error": ENDED}
                with pytest.raises(ConnectionClosed):
                    await client.recv()
            assert (client.close_code, client.close_reason) == (1008, ENDED)
        assert {(await far.next_end()).close_code for _ in range(2)} == {1001}
        await bobs.send("question")
        await bobs.recv()
        assert await bobs.recv() == DONE
    await ended(aimux)
    assert sorted(line["error"] for line in access(aimux) if line["method"] == "GET") == [
        "-",
        "unauthorized",
        "unauthorized",
    ]


async def test_a_socket_in_the_middle_of_a_message_gets_no_other_in_between(begin: Begin, far: Far) -> None:
    async def serve(server: Any) -> None:
        await server.recv()

        async def pieces() -> Any:
            yield "half"
            await server.wait_closed()

        await server.send(pieces())

    far.serve = serve
    aimux = await begin(users=USERS)
    async with socket(aimux) as client:
        await client.send("question")
        pieces = client.recv_streaming()
        async with asyncio.timeout(10):
            assert await anext(pieces) == "half"
            await without(aimux)
            with pytest.raises(ConnectionClosed):
                await anext(pieces)
        assert client.close_code == 1008
