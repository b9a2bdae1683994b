"""Bytes through the gateway: what each side sees, on raw sockets."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import replace

import pytest

from aimux.config import User
from aimux.gateway import Authentication
from aimux.relay.framing import chunk

from .conftest import SECRET, TOKEN, Start, Upstream, request

SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b'data: {"text":"hi"}\n\n'
OTHER = User.model_validate({"name": "other", "token": "another-token-0123456789"})
DONE = b'data: {"done":1,"tokens":7}\n\n'


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def head_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[0].lower()


async def test_a_request_reaches_the_upstream_with_the_accounts_credential(start: Start, upstream: Upstream) -> None:
    aimux = await start()
    answer = await aimux.send(request("/plain/v1/chat?beta=true", headers="X-Custom: Kept\r\nAccept: */*\r\n"))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\n{}")
    sent = upstream.requests[0]
    assert sent.startswith(b"POST /v1/chat?beta=true HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % upstream.port)
    assert b"X-Custom: Kept\r\n" in sent
    assert f"authorization: Bearer {SECRET}".encode() in sent
    assert sent.endswith(b'\r\n\r\n{"model":"m"}')


async def test_nothing_of_the_client_that_must_not_go_upstream_does(start: Start, upstream: Upstream) -> None:
    aimux = await start()
    headers = (
        f"Cookie: a=b\r\nX-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nX-Api-Key: {TOKEN}\r\nVia: 1.1 x\r\n"
        f"Proxy-Authorization: Basic abc\r\nX-Copy: my {TOKEN}\r\nTE: trailers\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n"
        "X-Real-IP: 1.2.3.4\r\nX-Aimux-Note: 1\r\nConnection: X-Hop\r\n"
    )
    await aimux.send(request(headers=headers))
    sent = upstream.requests[0].lower()
    for name in ("cookie", "forwarded", "x-api-key", "via", "proxy-", "x-copy", "te:", "x-hop", "keep-alive", "x-real"):
        assert name.encode() not in sent, name
    assert b"x-aimux" not in sent
    assert b"connection" not in sent
    assert TOKEN.encode() not in sent


async def test_the_answers_own_headers_pass_less_those_that_may_not(start: Start, upstream: Upstream) -> None:
    upstream.answer = (
        b"HTTP/1.1 203 Odd Reason\r\nX-Kept: yes\r\nSet-Cookie: a=b\r\nX-Account: acc\r\n"
        b"Connection: X-Hop\r\nX-Hop: 1\r\n"
        b"X-Request-Id: theirs\r\nAlt-Svc: h3\r\ncontent-length: 2\r\n\r\nok"
    )
    aimux = await start()
    answer = await aimux.send(request(headers="X-Request-Id: mine\r\n"))
    assert answer.startswith(b"HTTP/1.1 203 Odd Reason\r\n")
    head = head_of(answer)
    assert b"x-kept: yes" in head
    assert b"x-request-id: mine" in head
    assert b"x-upstream-request-id: theirs" in head
    for name in (b"set-cookie", b"x-account", b"x-hop", b"alt-svc"):
        assert name not in head


async def test_each_event_reaches_the_client_when_it_is_sent(start: Start, upstream: Upstream) -> None:
    more = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(SSE + chunk(EVENT))
        await more.wait()
        writer.write(chunk(DONE) + b"0\r\n\r\n")
        await reader.read()

    upstream.script = script
    aimux = await start()
    reader, writer = await aimux.connect()
    writer.write(request(close=False))
    async with asyncio.timeout(10):
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(len(chunk(EVENT))) == chunk(EVENT)
        more.set()
        assert await reader.readuntil(b"0\r\n\r\n") == chunk(DONE) + b"0\r\n\r\n"


@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_a_stream_in_tiny_pieces_arrives_whole(start: Start, upstream: Upstream, size: int) -> None:
    whole = SSE + chunk(EVENT) + chunk('data: {"text":"grüße 😀"}\n\n'.encode()) + chunk(DONE) + b"0\r\n\r\n"

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        for i in range(0, len(whole), size):
            writer.write(whole[i : i + size])
            await writer.drain()
            await asyncio.sleep(0)
        await reader.read()

    upstream.script = script
    aimux = await start()
    answer = await aimux.send(request())
    assert answer.endswith(body_of(whole))
    assert aimux.app.gateway.pool.active_exchanges == 0


async def test_a_meters_fault_in_mid_stream_costs_the_usage_and_nothing_else(start: Start, upstream: Upstream) -> None:
    events = [EVENT, b'data: {"faulty":1}\n\n', EVENT, EVENT]

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(SSE)
        for event in events:
            writer.write(chunk(event))
            await writer.drain()
            await asyncio.sleep(0.01)  # a packet each
        writer.write(b"0\r\n\r\n")
        await reader.read()

    upstream.script = script
    aimux = await start()
    answer = await aimux.send(request())
    assert body_of(answer) == b"".join(chunk(event) for event in events) + b"0\r\n\r\n"
    assert aimux.log.count("a meter's fault") == 1
    assert "status=200" in aimux.log
    assert "tokens=0+0+0/0" in aimux.log


async def test_requests_on_one_connection_go_up_each_with_its_own_head(start: Start, upstream: Upstream) -> None:
    """The second is recognized by its head, and the third differs from it."""
    aimux = await start()
    reader, writer = await aimux.connect()
    bodies = [b'{"model":"m"}', b'{"model":"m","longer":true}', b"{}"]
    for body, more in zip(bodies, ["", "", "X-Third: 3\r\n"], strict=True):
        writer.write(request(body=body, headers=more, close=False))
        assert (await reader.readuntil(b"\r\n\r\n{}")).startswith(b"HTTP/1.1 200 ")
    writer.close()
    assert [sent.partition(b"\r\n\r\n")[2] for sent in upstream.requests] == bodies
    lengths = [
        b"\r\nContent-Length: %d\r\n" % len(body) in sent for body, sent in zip(bodies, upstream.requests, strict=True)
    ]
    assert lengths == [True] * 3
    assert [b"X-Third: 3" in sent for sent in upstream.requests] == [False, False, True]
    assert all(SECRET.encode() in sent and TOKEN.encode() not in sent for sent in upstream.requests)


async def test_a_token_that_was_taken_away_does_not_go_on_with_its_connection(start: Start, upstream: Upstream) -> None:
    aimux = await start()
    reader, writer = await aimux.connect()
    writer.write(request(close=False))
    assert (await reader.readuntil(b"\r\n\r\n{}")).startswith(b"HTTP/1.1 200 ")
    (connection,) = aimux.app.gateway.server.connections
    kept = connection._heads.known(request(close=False).partition(b"\r\n\r\n")[0])
    assert kept is not None
    assert kept.context.sent is not None
    assert not {secret for secret in (TOKEN, SECRET) if secret in repr(kept.context)}
    setup = aimux.app.gateway.setup
    aimux.app.gateway.setup = replace(setup, authentication=Authentication([OTHER], allow_anonymous=False))
    writer.write(request(close=True))
    assert (await reader.read()).startswith(b"HTTP/1.1 401 ")
    assert len(upstream.requests) == 1


async def test_an_upstream_that_dies_in_mid_stream_ends_with_an_error_event_and_no_clean_end(
    start: Start, upstream: Upstream
) -> None:
    """Lesson 11."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(SSE + chunk(EVENT))
        await writer.drain()

    upstream.script = script
    aimux = await start()
    answer = await aimux.send(request(close=False))
    told = body_of(answer).removeprefix(chunk(EVENT))
    assert told.partition(b"\r\n")[2].startswith(b"event: error\ndata: ")
    assert not answer.endswith(b"0\r\n\r\n")


async def test_an_upstream_that_dies_behind_its_last_event_makes_no_failure_of_a_whole_answer(
    start: Start, upstream: Upstream
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(SSE + chunk(EVENT) + chunk(DONE))
        await writer.drain()

    upstream.script = script
    aimux = await start()
    answer = await aimux.send(request(close=False))
    assert body_of(answer) == chunk(EVENT) + chunk(DONE)
    assert "upstream_lost" in aimux.log


async def test_a_reset_in_mid_stream_is_told_too(start: Start, upstream: Upstream) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(SSE + b"ffff\r\n" + EVENT)
        await writer.drain()
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    upstream.script = script
    aimux = await start()
    answer = await aimux.send(request(close=False))
    assert b"ffff\r\n" + EVENT + b"event: error\n" in answer
    assert "upstream_lost" in aimux.log


@pytest.mark.parametrize("end", [b"", b"0\r\n\r\n"])
async def test_half_an_event_is_followed_by_nothing_that_would_be_read_as_its_rest(
    start: Start, upstream: Upstream, end: bytes
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(SSE + chunk(EVENT + EVENT[:-5]) + end)
        await writer.drain()

    upstream.script = script
    aimux = await start()
    answer = await aimux.send(request(close=False))
    assert body_of(answer) == chunk(EVENT + EVENT[:-5])
    assert "upstream_lost" in aimux.log


async def test_a_clean_early_end_is_no_clean_end(start: Start, upstream: Upstream) -> None:
    """Lesson 11; SDKs take a clean early EOF for a short answer."""
    upstream.answer = SSE + chunk(EVENT) + b"0\r\n\r\n"
    aimux = await start()
    answer = await aimux.send(request(close=False))
    assert b"event: error\ndata: " in answer
    assert not answer.endswith(b"0\r\n\r\n")


async def test_a_json_answer_that_breaks_off_breaks_the_connection(start: Start, upstream: Upstream) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"a":')

    upstream.script = script
    aimux = await start()
    answer = await aimux.send(request(close=False))
    assert body_of(answer) == b'{"a":'


async def test_an_answer_that_ends_with_the_connection_is_chunked_for_the_client(
    start: Start, upstream: Upstream
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + EVENT + DONE)

    upstream.script = script
    aimux = await start()
    reader, writer = await aimux.connect()
    writer.write(request(close=False))
    async with asyncio.timeout(10):
        assert b"transfer-encoding: chunked" in (await reader.readuntil(b"\r\n\r\n")).lower()
        assert await reader.readuntil(b"0\r\n\r\n") == chunk(EVENT + DONE) + b"0\r\n\r\n"


async def test_an_http_10_client_gets_no_chunks(start: Start, upstream: Upstream) -> None:
    upstream.answer = SSE + chunk(EVENT) + chunk(DONE) + b"0\r\n\r\n"
    aimux = await start()
    answer = await aimux.send(request(version="1.0"))
    assert b"transfer-encoding" not in head_of(answer)
    assert body_of(answer) == EVENT + DONE


@pytest.mark.parametrize(
    ("method", "head"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 500\r\n\r\n"),
    ],
)
async def test_answers_without_a_body(start: Start, upstream: Upstream, method: str, head: bytes) -> None:
    upstream.answer = head
    aimux = await start()
    reader, writer = await aimux.connect()
    async with asyncio.timeout(10):
        for _ in range(2):
            writer.write(request(method=method, body=b"", close=False))
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(head.partition(b"\r\n")[0])
    assert upstream.connections == 1


async def test_interim_answers_end_here(start: Start, upstream: Upstream) -> None:
    upstream.answer = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + upstream.answer
    aimux = await start()
    assert (await aimux.send(request())).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_expect_100_continue(start: Start, upstream: Upstream) -> None:
    aimux = await start()
    reader, writer = await aimux.connect()
    head, _, body = request(headers="Expect: 100-continue\r\n").partition(b"\r\n\r\n")
    writer.write(head + b"\r\n\r\n")
    async with asyncio.timeout(10):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    assert b"expect" not in upstream.requests[0].lower()


async def test_pipelined_requests_are_answered_in_order(start: Start, upstream: Upstream) -> None:
    aimux = await start()
    answer = await aimux.send(
        request("/plain/1", headers="X-Request-Id: a\r\n", close=False)
        + request("/plain/2", headers="X-Request-Id: b\r\n", close=False)
        + request("/plain/3", headers="X-Request-Id: c\r\n")
    )
    assert [answer.find(b"x-request-id: " + i) >= 0 for i in (b"a", b"b", b"c")] == [True] * 3
    assert answer.find(b": a\r\n") < answer.find(b": b\r\n") < answer.find(b": c\r\n")


async def test_a_chunked_request_goes_up_with_its_length(start: Start, upstream: Upstream) -> None:
    aimux = await start()
    head = request(body=b"", headers="Transfer-Encoding: chunked\r\n")
    await aimux.send(head + chunk(b"hello ") + chunk(b"world") + b"0\r\n\r\n")
    assert upstream.requests[0].endswith(b"Content-Length: 11\r\n\r\nhello world")
    assert b"transfer-encoding" not in upstream.requests[0].lower()


async def test_a_compressed_body_is_not_touched(start: Start, upstream: Upstream) -> None:
    aimux = await start()
    body = bytes(range(256)) * 20
    await aimux.send(request(body=body, headers="Content-Encoding: gzip\r\n"))
    assert upstream.requests[0].endswith(b"\r\n\r\n" + body)
    assert b"Content-Encoding: gzip" in upstream.requests[0]


async def test_connections_are_kept_and_a_stale_one_is_replaced(start: Start, upstream: Upstream) -> None:
    once = upstream.answer

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(once)
        await upstream.read(reader)  # and then hangs up without a word

    upstream.script = script
    aimux = await start()
    for _ in range(3):
        assert (await aimux.send(request())).startswith(b"HTTP/1.1 200 OK")
    assert upstream.connections == 3
    assert len(upstream.requests) == 5


async def test_a_client_that_leaves_stops_its_upstream(start: Start, upstream: Upstream) -> None:
    """Lesson 13."""
    gone = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(SSE + chunk(EVENT))
        await reader.read()
        gone.set()

    upstream.script = script
    aimux = await start()
    reader, writer = await aimux.connect()
    writer.write(request())
    async with asyncio.timeout(10):
        await reader.readuntil(EVENT)
        writer.transport.abort()
        await gone.wait()
    await upstream.until(lambda: upstream.open == 0)
    assert "client_gone" in aimux.log


async def test_a_client_that_leaves_before_the_head_stops_its_upstream(start: Start, upstream: Upstream) -> None:
    gone = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        await reader.read()
        gone.set()

    upstream.script = script
    aimux = await start()
    _, writer = await aimux.connect()
    writer.write(request())
    await upstream.until(lambda: len(upstream.requests) == 1)
    writer.transport.abort()
    async with asyncio.timeout(10):
        await gone.wait()


async def test_a_slow_client_slows_the_upstream_down(start: Start, upstream: Upstream) -> None:
    sent = 0
    full = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await upstream.read(reader)
        writer.write(SSE)
        writer.transport.set_write_buffer_limits(1)
        piece = chunk(b":" + b"x" * 65_000 + b"\n\n")
        for _ in range(2000):
            writer.write(piece)
            sent += len(piece)
            try:
                await asyncio.wait_for(writer.drain(), 0.3)
            except TimeoutError:
                full.set()
                await writer.drain()

    upstream.script = script
    aimux = await start()
    reader, writer = await aimux.connect()
    writer.write(request())
    async with asyncio.timeout(30):
        await full.wait()
        assert sent < 40_000_000
        received = 0
        while received < 20_000_000:
            received += len(await reader.read(1 << 20))
    writer.transport.abort()


async def test_an_answer_before_the_request_was_read_reaches_the_client(start: Start, upstream: Upstream) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        await reader.read()

    upstream.script = script
    aimux = await start()
    assert (await aimux.send(request(body=b"x" * 5_000_000))).startswith(b"HTTP/1.1 413 No\r\n")


async def test_a_request_that_is_arriving_when_aimux_stops_is_served(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aimux.gateway.gateway.ARRIVAL_SECONDS", 10.0)
    aimux = await start()
    whole = request(body=b'{"model":"m"}', close=False)
    idle, fresh, half_head, half_body = [await aimux.connect() for _ in range(4)]
    idle[1].write(whole)
    async with asyncio.timeout(10):
        await idle[0].readuntil(b"{}")
        half_head[1].write(whole[:30])
        half_body[1].write(whole[:-5])
        while len(aimux.app.gateway.server.connections) < 4 or not aimux.app.gateway._open:
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
