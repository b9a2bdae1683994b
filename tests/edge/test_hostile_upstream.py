"""Answers from an upstream that means harm: one well-formed answer for the client that asked, or none of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

from aimux.relay.framing import chunk
from tests.gateway.conftest import Upstream

from .conftest import SECRET, Aimux, ask, head

OK = b"HTTP/1.1 200 OK\r\n"
EVIL = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nset-cookie: evil=1\r\n\r\nevil"
"""An answer that nobody asked for."""

_STATUS_LINE = re.compile(rb"HTTP/1\.1 [1-9][0-9]{2} [\t -~\x80-\xff]*")
_FIELD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: ?[\t -~\x80-\xff]*")


def read_strictly(answer: bytes, *, method: str = "GET") -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body of what must be exactly one whole answer with one reading."""
    block, end, rest = answer.partition(b"\r\n\r\n")
    lines = block.split(b"\r\n")
    assert end
    assert _STATUS_LINE.fullmatch(lines[0]), lines[0]
    headers: dict[bytes, bytes] = {}
    for line in lines[1:]:
        assert _FIELD.fullmatch(line), line
        name, _, value = line.partition(b":")
        assert name.lower() not in {b"content-length", b"transfer-encoding", b"connection"} & headers.keys(), line
        headers[name.lower()] = value.strip()
    status = int(lines[0][9:12])
    assert not {b"content-length", b"transfer-encoding"} <= headers.keys()
    if method == "HEAD" or status in {204, 304}:
        assert rest == b""
    elif b"transfer-encoding" in headers:
        assert headers[b"transfer-encoding"] == b"chunked"
        body = b""
        while True:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size.partition(b";")[0], 16)
            body, rest = body + rest[:length], rest[length:]
            assert rest[:2] == b"\r\n"
            rest = rest[2:]
            if not length:
                assert rest == b""
                return status, headers, body
    else:
        assert len(rest) == int(headers[b"content-length"]), answer
    return status, headers, rest


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """Not the strict one: here it is the villain. A request for /v1/honest gets an honest answer."""
    fake = Upstream()
    server = await asyncio.start_server(fake._connected, "127.0.0.1", 0)
    fake.port = server.sockets[0].getsockname()[1]
    yield fake
    server.close()
    await fake.until(lambda: fake.open == 0)


def says(upstream: Upstream, *pieces: bytes, hang_up: bool = True) -> None:
    """From now on it answers everything but the honest client with these bytes, then FIN (or silence)."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await upstream.read(reader):
            if b" /v1/honest " in request:
                writer.write(OK + b"content-length: 6\r\n\r\nhonest")
                continue
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.001)
            if hang_up:
                return

    upstream.script = script


async def honest(aimux: Aimux) -> None:
    for _ in range(2):
        answer = await ask(aimux, head("GET /plain/v1/honest HTTP/1.1", close=True))
        status, headers, body = read_strictly(answer)
        assert (status, body) == (200, b"honest")
        assert b"set-cookie" not in headers


async def evil(aimux: Aimux, line: str = "GET /plain/v1/evil HTTP/1.1") -> bytes:
    return await ask(aimux, head(line, close=True))


BAD_HEADS = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "nothing": b"",
    "an empty line": b"\r\n\r\n",
    "HTML": b"<html><body>200 OK</body></html>\r\n\r\n",
    "HTTP/0.9": b"hello",
    "HTTP/2": b"HTTP/2 200 OK\r\ncontent-length: 0\r\n\r\n",
    "another version": b"HTTP/1.2 200 OK\r\ncontent-length: 0\r\n\r\n",
    "a long version": b"HTTP/1.10 200 OK\r\ncontent-length: 0\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n",
    "status 099": b"HTTP/1.1 099 OK\r\ncontent-length: 0\r\n\r\n",
    "a negative status": b"HTTP/1.1 -20 OK\r\ncontent-length: 0\r\n\r\n",
    "two spaces": b"HTTP/1.1  200 OK\r\ncontent-length: 0\r\n\r\n",
    "line feeds alone": b"HTTP/1.1 200 OK\ncontent-length: 4\n\nevil",
    "a line feed in the reason": b"HTTP/1.1 200 OK\nset-cookie: evil=1\r\ncontent-length: 0\r\n\r\n",
    "a carriage return in the reason": b"HTTP/1.1 200 O\rK\r\ncontent-length: 0\r\n\r\n",
    "NUL in the reason": b"HTTP/1.1 200 O\0K\r\ncontent-length: 0\r\n\r\n",
    **{
        f"the line {line!r}": OK + line + b"\r\ncontent-length: 0\r\n\r\n"
        for line in (
            b"x: a\nset-cookie: evil=1",
            b"x: a\rset-cookie: evil=1",
            b"x: a\r\n folded",
            b"x: a\r\n\tset-cookie: evil=1",
            b" x: a",
            b"x : a",
            b"x\t: a",
            b"x",
            b": a",
            b"x y: a",
            b"x\0: a",
            b"x: a\0",
            b"x: a\x01",
            b"x: a\x7f",
            b"x\xe9: a",
            b"x(y): a",
        )
    },
    **{
        f"the framing {line!r}": OK + line + b"\r\n\r\nevil"
        for line in (
            b"content-length: 4\r\ncontent-length: 5",
            b"content-length: 4, 5",
            b"content-length: +4",
            b"content-length: -4",
            b"content-length: 0x4",
            b"content-length: 4 4",
            b"content-length: 4a",
            b"content-length:",
            b"content-length: " + b"9" * 30,
            b"content-length: 4\r\ntransfer-encoding: chunked",
            b"transfer-encoding: chunked\r\ncontent-length: 4",
            b"transfer-encoding: identity",
            b"transfer-encoding: gzip, chunked",
            b"transfer-encoding: chunked, chunked",
            b"transfer-encoding: chunked\r\ntransfer-encoding: chunked",
            b"transfer-encoding: xchunked",
            b"transfer-encoding: \x0bchunked",
            b"transfer-encoding:",
        )
    },
    "chunked in HTTP/1.0": b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(b"evil") + b"0\r\n\r\n",
    "a switch of protocols": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n" + EVIL,
    "17 interim answers": b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 17 + EVIL,
    "an endless reason": b"HTTP/1.1 200 " + b"a" * 100_000,
    "an endless header": OK + b"x: " + b"a" * 100_000,
    "endless headers": OK + b"x: a\r\n" * 20_000,
    "endless interim headers": b"HTTP/1.1 100 Continue\r\n" + b"x: a\r\n" * 20_000,
}


@pytest.mark.parametrize("answer", BAD_HEADS.values(), ids=BAD_HEADS)
async def test_a_bad_head_is_a_502_without_a_byte_of_it(aimux: Aimux, upstream: Upstream, answer: bytes) -> None:
    says(upstream, answer)
    status, headers, body = read_strictly(await evil(aimux))
    assert status == 502
    assert b"evil" not in body
    assert b"set-cookie" not in headers
    assert SECRET.encode() not in body
    await honest(aimux)


async def test_endless_interim_answers_end(aimux: Aimux, upstream: Upstream) -> None:
    says(upstream, *[b"HTTP/1.1 100 Continue\r\n\r\n"] * 200)
    assert read_strictly(await evil(aimux))[0] == 502
    await honest(aimux)


async def test_a_few_interim_answers_are_no_storm(aimux: Aimux, upstream: Upstream) -> None:
    says(upstream, b"HTTP/1.1 102 Processing\r\n\r\n" * 15 + b"HTTP/1.1 100 Continue\r\n\r\n", EVIL, hang_up=False)
    status, headers, body = read_strictly(await evil(aimux))
    assert (status, body) == (200, b"evil")
    assert b"set-cookie" not in headers


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


async def test_an_answer_before_its_request_is_the_answer_and_the_connections_last(
    aimux: Aimux, upstream: Upstream
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(EVIL)
        await writer.drain()
        await upstream.read(reader)
        await reader.read()

    upstream.script = script
    large = head("POST /plain/v1/evil HTTP/1.1", "Content-Length: 8000000", close=True) + bytes(8_000_000)
    status, headers, body = read_strictly(await ask(aimux, large))
    assert (status, body) == (200, b"evil")
    assert b"set-cookie" not in headers
    await upstream.until(lambda: upstream.open == 0)
    says(upstream)
    await honest(aimux)


async def test_headers_that_end_here_end_here_however_they_are_written(aimux: Aimux, upstream: Upstream) -> None:
    says(
        upstream,
        OK + b"Connection: keep-alive, X-Hop\r\ncOnNeCtIoN: x-other\r\nX-HOP: 1\r\nx-other: 2\r\nSET-cookie: evil=1\r\n"
        b"Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nTrailer: x\r\nUpgrade: h2c\r\nTE: x\r\n"
        b"X-Account: acc\r\nAlt-Svc: h3\r\nStrict-Transport-Security: max-age=1\r\ncontent-length: 2\r\n\r\nok",
    )
    _, headers, body = read_strictly(await evil(aimux))
    assert body == b"ok"
    assert headers.keys() == {b"content-length", b"connection", b"x-request-id"}
    assert headers[b"connection"] == b"close"
