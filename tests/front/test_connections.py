"""Connections that carry several requests, or parts of them: each has its own answer, in its place, or none."""

from __future__ import annotations

import asyncio
import re
import socket
import struct

import pytest

from aimux.front.connection import READ_AHEAD
from aimux.http.framing import MAX_CHUNKS, Chunked
from aimux.http.request import FRAMING_FROM

from .conftest import TOKEN, Aimux, Start, StrictUpstream, ask, head, honest

PATH = "POST /plain/v1/chat HTTP/1.1"
CHUNKED = head(PATH, "Transfer-Encoding: chunked", close=True)


async def test_pipelined_halves(aimux: Aimux, upstream: StrictUpstream) -> None:
    """The end of one request and the start of the next in one packet, cut at every place of the second's head."""
    first = head("POST /plain/v1/one HTTP/1.1", "Content-Length: 5", tag="first") + b"hello"
    second = head("POST /plain/v1/two HTTP/1.1", "Content-Length: 3", tag="second", close=True) + b"bye"
    for cut in range(0, len(second), 7):
        upstream.requests.clear()
        answer = await ask(aimux, first[:-3], first[-3:] + second[:cut], second[cut:])
        assert [part.rpartition(b"\r\n\r\n")[2] for part in answer.split(b"HTTP/1.1 200 OK\r\n")[1:]] == [
            b"first",
            b"second",
        ]
        assert [request.partition(b" HTTP")[0] for request in upstream.requests] == [b"POST /v1/one", b"POST /v1/two"]
        assert [request.rpartition(b"\r\n\r\n")[2] for request in upstream.requests] == [b"hello", b"bye"]
    await honest(aimux, upstream)


@pytest.mark.parametrize(
    "half",
    [
        head(PATH)[:-2],
        head(PATH, "Content-Length: 50") + b"hello",
        CHUNKED + b"5\r\nhel",
        CHUNKED + b"5\r\nhello\r\n0\r\n",
    ],
    ids=["head", "body", "chunk", "trailers"],
)
async def test_half_a_request_never_goes_up(aimux: Aimux, upstream: StrictUpstream, half: bytes) -> None:
    whole = head("GET /plain/v1/one HTTP/1.1", tag="first")
    reader, writer = await aimux.connect()
    writer.write(whole + half)
    assert (await reader.readuntil(b"first")).startswith(b"HTTP/1.1 200 OK")
    writer.write_eof()
    assert await reader.read() == b""
    assert len(upstream.requests) == 1
    await honest(aimux, upstream)


async def test_a_refused_upgrade_takes_nothing_with_it(aimux: Aimux, upstream: StrictUpstream) -> None:
    """What follows is neither swallowed nor taken for frames."""
    upgrade = head("GET /plain/v1/chat HTTP/1.1", "Upgrade: websocket", "Connection: Upgrade")
    next_ = head("GET /plain/v1/next HTTP/1.1", tag="next", close=True)
    answer = await ask(aimux, upgrade + next_)
    assert answer.startswith(b"HTTP/1.1 426 ")
    assert answer.endswith(b"next")
    assert len(upstream.requests) == 1
    await honest(aimux, upstream)


@pytest.mark.parametrize(
    ("line", "options", "ends"),
    [
        ("HTTP/1.1", "", False),
        ("HTTP/1.1", "keep-alive", False),
        ("HTTP/1.1", "close", True),
        ("HTTP/1.1", "\tX-Hop ,\tCLOSE\t", True),
        ("HTTP/1.1", "closed, not-close", False),
        ("HTTP/1.0", "", True),
        ("HTTP/1.0", "keep-alive", True),
    ],
)
async def test_who_ends_the_connection_is_said_and_held(
    aimux: Aimux, upstream: StrictUpstream, line: str, options: str, ends: bool
) -> None:
    """Where it ends, a request behind it has no answer and goes nowhere."""
    fields = [f"Connection: {options}"] if options else []
    first = head(f"GET /plain/v1/one {line}", *fields, "X-Hop: 1", tag="first")
    answer = await ask(aimux, first + head("GET /plain/v1/two HTTP/1.1", tag="second", close=True))
    assert answer.count(b"HTTP/1.1 200 OK") == (1 if ends else 2)
    assert (b"\r\nconnection: close\r\n" in answer.partition(b"\r\n\r\n")[0].lower() + b"\r\n") is ends
    assert len(upstream.requests) == (1 if ends else 2)
    await honest(aimux, upstream)


async def test_a_thousand_pipelined_requests_have_their_answers_in_order(
    aimux: Aimux, upstream: StrictUpstream
) -> None:
    tags = [f"t{number}" for number in range(1000)]
    body = b"x" * 50
    requests = b"".join(
        head(PATH, f"Content-Length: {len(body)}", tag=tag, close=tag == tags[-1]) + body for tag in tags
    )
    answer = await ask(aimux, requests)
    assert re.findall(rb"\r\n\r\n(t\d+)", answer) == [tag.encode() for tag in tags]
    assert len(upstream.requests) == 1000
    await honest(aimux, upstream)


async def test_requests_wait_while_their_answers_are_not_taken(aimux: Aimux) -> None:
    """A flood of small questions with larger answers fills neither aimux nor its event loop."""
    questions = 10_000
    server, loop = aimux.app.gateway.server, asyncio.get_running_loop()
    flood = b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\n" * questions
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", aimux.port))
        asking = asyncio.create_task(loop.sock_sendall(client, flood + b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"))
        async with asyncio.timeout(30):
            while not any(connection.full for connection in server.connections):
                await asyncio.sleep(0)
            (connection,) = server.connections
            served = connection.served
            for _ in range(100):
                await asyncio.sleep(0)
            assert connection.served == served < questions
            assert connection.transport.get_write_buffer_size() < 128 * 1024
            answers, kept = bytearray(), 0
            while received := await loop.sock_recv(client, 1 << 16):
                answers += received
                kept = max(kept, len(connection._buffer))
            await asking
    assert answers.count(b"HTTP/1.1 401 ") == questions
    assert answers.count(b"HTTP/1.1 200 OK") == 1, "the last one ends the connection"
    assert kept < READ_AHEAD + 512 * 1024, "one packet more than it keeps"


async def test_a_body_that_arrives_behind_its_answer_is_none_of_the_next_request(
    aimux: Aimux, upstream: StrictUpstream
) -> None:
    reader, writer = await aimux.connect()
    writer.write(head(PATH, "Content-Length: 10").replace(TOKEN.encode(), b"wrong-token-0123456789"))
    async with asyncio.timeout(10):
        refusal = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(re.findall(rb"content-length: (\d+)", refusal)[0]))
        assert refusal.startswith(b"HTTP/1.1 401 ")
        for piece in (b"01234", b"56789"):
            writer.write(piece)
            await asyncio.sleep(0)
        writer.write(head("GET /plain/v1/next HTTP/1.1", tag="next", close=True))
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"\r\n\r\nnext")
    assert len(upstream.requests) == 1
    await honest(aimux, upstream)


@pytest.mark.parametrize(
    "rest", [b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"zz\r\n", b"0\r\nContent-Length: 1\r\n\r\n"]
)
async def test_chunks_behind_a_refusal_are_not_read_and_their_connection_ends(
    aimux: Aimux, upstream: StrictUpstream, monkeypatch: pytest.MonkeyPatch, rest: bytes
) -> None:
    reader, writer = await aimux.connect()
    writer.write(head(PATH, "Transfer-Encoding: chunked").replace(TOKEN.encode(), b"wrong-token-0123456789"))
    async with asyncio.timeout(10):
        refusal = await reader.readuntil(b"\r\n\r\n")
        assert b"\r\nconnection: close\r\n" in refusal
        monkeypatch.delattr(Chunked, "feed")
        writer.write(rest + head("GET /plain/v1/next HTTP/1.1", tag="next"))
        assert b"HTTP/1." not in await reader.read()
    assert upstream.raw == b""
    monkeypatch.undo()
    await honest(aimux, upstream)


async def test_a_packet_of_tiny_chunks_is_read_in_many_rounds(aimux: Aimux, upstream: StrictUpstream) -> None:
    """And arrives whole, with the request behind it."""
    size = 3 * MAX_CHUNKS + 1
    packet = head(PATH, "Transfer-Encoding: chunked", tag="tiny") + b"1\r\nx\r\n" * size + b"0\r\n\r\n"
    reader, writer = await aimux.connect()
    async with asyncio.timeout(10):
        writer.write(packet + head("GET /plain/v1/next HTTP/1.1", tag="next", close=True))
        answers = await reader.read()
    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert upstream.requests[0].endswith(b"\r\n\r\n" + b"x" * size)
    await honest(aimux, upstream)


async def test_a_body_of_nothing_but_framing_is_refused(aimux: Aimux, upstream: StrictUpstream) -> None:
    packet = head("POST /plain/v1/chat HTTP/1.1", "Transfer-Encoding: chunked") + b"3\r\nxyz\r\n" * (
        FRAMING_FROM // 8 + 1
    )
    answer = await ask(aimux, packet, b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"its body has chunks of a few bytes each" in answer
    assert upstream.raw == b""
    fine = (
        head("POST /plain/v1/chat HTTP/1.1", "Transfer-Encoding: chunked", close=True)
        + b"b\r\nhello world\r\n" * 40_000
    )
    assert (await ask(aimux, fine, b"0\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_who_expects_to_be_told_is_told_once_or_refused_for_good(aimux: Aimux, upstream: StrictUpstream) -> None:
    """What follows a refusal may be the body or another request: nobody reads it."""
    reader, writer = await aimux.connect()
    asked = head(PATH, "Content-Length: 5", "Expect: 100-Continue")
    writer.write(asked)
    async with asyncio.timeout(10):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hello")
        assert (await reader.readuntil(b"evil")).count(b"HTTP/1.1") == 1
        writer.write(asked.replace(TOKEN.encode(), b"wrong-token-0123456789"))
        refusal = await reader.readuntil(b"\r\n\r\n")
        assert refusal.startswith(b"HTTP/1.1 401 ")
        assert b"\r\nconnection: close\r\n" in refusal
        writer.write(head("GET /plain/v1/next HTTP/1.1", tag="next"))
        assert b"HTTP/1." not in await reader.read()
    assert len(upstream.requests) == 1
    await honest(aimux, upstream)


@pytest.mark.parametrize(
    "begun",
    [head(PATH)[:-2], head(PATH, "Content-Length: 50") + b"hello", CHUNKED + b"5\r\nhel"],
    ids=["head", "body", "chunk"],
)
async def test_a_reset_in_the_middle_of_a_request_is_its_end(
    aimux: Aimux, upstream: StrictUpstream, begun: bytes
) -> None:
    _, writer = await aimux.connect()
    writer.write(begun)
    server = aimux.app.gateway.server
    async with asyncio.timeout(10):
        while not server.connections:
            await asyncio.sleep(0)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        while server.connections:
            await asyncio.sleep(0)
    assert upstream.raw == b""
    assert "Traceback" not in aimux.log
    await honest(aimux, upstream)


@pytest.mark.parametrize("method", ["OPTIONS", "HEAD", "DELETE", "PUT", "PATCH", "GET", "PROPFIND", "M-SEARCH"])
async def test_any_method_may_have_a_body_and_it_goes_along(
    aimux: Aimux, upstream: StrictUpstream, method: str
) -> None:
    asked = head(f"{method} /plain/v1/chat HTTP/1.1", "Content-Length: 5", close=True) + b"hello"
    assert (await ask(aimux, asked)).startswith(b"HTTP/1.1 200 OK")
    (request,) = upstream.requests
    assert request.startswith(f"{method} /v1/chat HTTP/1.1\r\n".encode())
    assert request.endswith(b"Content-Length: 5\r\n\r\nhello")
    await honest(aimux, upstream)


async def test_a_client_that_ends_its_side_has_gone(start: Start, upstream: StrictUpstream) -> None:
    """Whoever closes a connection and whoever would still read look the same from here; the first are the many."""
    stopped = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        assert await reader.read() == b""
        stopped.set()

    upstream.script = script
    aimux = await start()
    reader, writer = await aimux.connect()
    writer.write(head("GET /plain/v1/chat HTTP/1.1"))
    await upstream.until(lambda: len(upstream.requests) == 1)
    writer.write_eof()
    async with asyncio.timeout(10):
        await stopped.wait()
        assert await reader.read() == b""
        while "error=client_gone" not in aimux.log:
            await asyncio.sleep(0)
