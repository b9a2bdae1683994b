"""Bodies from an upstream that means harm: too long, too short, too early, where none may be."""

from __future__ import annotations

import asyncio

import pytest

from aimux.http.framing import chunk
from tests.gateway.conftest import Upstream

from .conftest import Aimux, ask, head
from .hostile import EVIL, OK, evil, honest, read_strictly, says


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (OK + b"content-length: 2\r\n\r\nok", b"ok"),
        (OK + b"content-length: 0\r\n\r\n", b""),
        (OK + b"content-length: 2\r\ncontent-length: 2\r\n\r\nok", b"ok"),
        (OK + b"content-length: 2, 2\r\n\r\nok", b"ok"),
        (OK + b"transfer-encoding: chunked\r\n\r\n" + chunk(b"ok") + b"0\r\n\r\n", b"ok"),
        (OK + b"transfer-encoding: chunked\r\n\r\n" + chunk(b"ok") + b"0\r\nset-cookie: evil=1\r\n\r\n", b"ok"),
        (OK + b'transfer-encoding: chunked\r\n\r\n2;x="y"\r\nok\r\n0;z\r\n\r\n', b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\ncontent-length: 4\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 4\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n", b""),
    ],
)
async def test_an_answer_too_many_reaches_nobody(aimux: Aimux, upstream: Upstream, answer: bytes, body: bytes) -> None:
    """Early data: on a kept connection it would be the next client's answer."""
    says(upstream, answer + EVIL, hang_up=False)
    for _ in range(3):
        received = await evil(aimux)
        _, headers, got = read_strictly(received)
        assert got == body
        assert b"set-cookie" not in headers
        assert b"set-cookie" not in received
        await honest(aimux)


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"content-length: 4\r\n\r\n",
        OK + b"content-length: 4\r\n\r\nevil",
        OK + b"transfer-encoding: chunked\r\n\r\n" + chunk(b"evil") + b"0\r\n\r\n",
        OK + b"\r\nevil",
    ],
)
async def test_head_gets_no_body(aimux: Aimux, upstream: Upstream, answer: bytes) -> None:
    says(upstream, answer, hang_up=False)
    for _ in range(2):
        received = await evil(aimux, "HEAD /plain/v1/evil HTTP/1.1")
        assert read_strictly(received, method="HEAD")[0] == 200
        await honest(aimux)


LENGTH = OK + b"content-length: 400\r\n\r\n"
CHUNKS = OK + b"transfer-encoding: chunked\r\n\r\n"
CUT_SHORT = {
    "a length that is too long": (LENGTH, b"evil"),
    "a chunk that is too long": (CHUNKS, b"190\r\nevil"),
    "no last chunk": (CHUNKS, chunk(b"evil")),
    "no end of the trailers": (CHUNKS, chunk(b"evil") + b"0\r\nx: y\r\n"),
    "a chunk that goes on": (CHUNKS, b"4\r\nevilX\r\n0\r\n\r\n"),
    "a chunk size that is none": (CHUNKS, chunk(b"evil") + b"0x4\r\nevil\r\n"),
    "a negative chunk size": (CHUNKS, chunk(b"evil") + b"-4\r\nevil\r\n"),
    "a chunk size with a line feed": (CHUNKS, chunk(b"evil") + b"4\nevil\r\n"),
    "a chunk size beyond 60 bits": (CHUNKS, chunk(b"evil") + b"f" * 17 + b"\r\n"),
    "an endless chunk size": (CHUNKS, chunk(b"evil") + b"4;" + b"x" * 100_000),
    "endless trailers": (CHUNKS, chunk(b"evil") + b"0\r\n" + b"x: y\r\n" * 20_000),
}


@pytest.mark.parametrize(("start_", "rest"), CUT_SHORT.values(), ids=CUT_SHORT)
async def test_a_body_that_does_not_end_as_its_head_said_never_ends_cleanly(
    aimux: Aimux, upstream: Upstream, start_: bytes, rest: bytes
) -> None:
    """The client's connection breaks off: what it has can't be taken for a whole answer, nor be followed by another."""
    begun = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(start_)
        await begun.wait()
        writer.write(rest)
        await writer.drain()

    upstream.script = script
    reader, writer = await aimux.connect()
    writer.write(head("GET /plain/v1/evil HTTP/1.1") + head("GET /plain/v1/honest HTTP/1.1"))
    async with asyncio.timeout(10):
        received = await reader.readuntil(b"\r\n\r\n")
        begun.set()
        received += await reader.read()
    assert received.startswith(OK)
    assert received.count(b"HTTP/1.1") == 1
    with pytest.raises((AssertionError, ValueError)):
        read_strictly(received)
    says(upstream)
    await honest(aimux)


@pytest.mark.parametrize(("start_", "rest"), CUT_SHORT.values(), ids=CUT_SHORT)
async def test_the_same_in_one_packet_is_no_whole_answer_either(
    aimux: Aimux, upstream: Upstream, start_: bytes, rest: bytes
) -> None:
    """Where the fault is seen in time, nothing of it is sent: 502."""
    says(upstream, start_ + rest)
    received = await evil(aimux)
    try:
        status, _, body = read_strictly(received)
    except (AssertionError, ValueError):
        assert received.startswith(OK)
    else:
        assert status == 502
        assert b"evil" not in body
    await honest(aimux)


async def test_a_word_from_an_idle_connection_reaches_nobody(aimux: Aimux, upstream: Upstream) -> None:
    """A response without a request."""
    speak = asyncio.Event()
    over = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(OK + b"content-length: 2\r\n\r\nok")
        await speak.wait()
        writer.write(EVIL)
        assert await reader.read() == b""
        over.set()

    upstream.script = script
    answer = await evil(aimux)
    assert read_strictly(answer)[2] == b"ok"
    assert aimux.app.gateway.pool.open_connections == 1
    speak.set()
    async with asyncio.timeout(10):
        await over.wait()
    assert aimux.app.gateway.pool.open_connections == 0
    says(upstream)
    await honest(aimux)


async def test_an_answer_before_its_request_is_whole_is_the_answer_and_the_connections_last(
    aimux: Aimux, upstream: Upstream
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(EVIL)
        await reader.read()

    upstream.script = script
    large = head("POST /plain/v1/evil HTTP/1.1", "Content-Length: 8000000", close=True) + bytes(8_000_000)
    status, headers, body = read_strictly(await ask(aimux, large))
    assert (status, body) == (200, b"evil")
    assert b"set-cookie" not in headers
    await upstream.until(lambda: upstream.open == 0)
    says(upstream)
    await honest(aimux)
