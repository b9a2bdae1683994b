"""Streams through the gateway: event by event, cut short, and never looking whole when they are not."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct

import pytest

from aimux.http.framing import MAX_CHUNKS, chunk

from .answers import DONE, EVENT, SSE, body_of, head_of, once, payload_of
from .conftest import BOTH_WAYS, Start, Upstream, request

pytestmark = BOTH_WAYS


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
async def test_a_stream_in_tiny_pieces_arrives_whole(start: Start, upstream: Upstream, size: int, way: str) -> None:
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
    assert payload_of(answer) == payload_of(whole)
    assert answer.endswith(body_of(whole) if way == "lane" else b"\r\n0\r\n\r\n")
    assert aimux.app.gateway.pool.active_exchanges == 0


TWICE = gzip.compress(gzip.compress(EVENT + DONE))


@pytest.mark.parametrize(
    ("codings", "packed"),
    [
        (b"gzip, gzip", TWICE),
        (b"gzip\r\ncontent-encoding: gzip", TWICE),
        (b"gzip, Identity", gzip.compress(EVENT + DONE)),
        (b"identity", EVENT + DONE),
    ],
    ids=[
        "twice",
        "on two lines",
        "and identity",
        "identity",
    ],  # what is packed holds the time, and workers would differ
)
async def test_a_stream_may_be_packed_twice(start: Start, upstream: Upstream, codings: bytes, packed: bytes) -> None:
    head = SSE.replace(b"\r\n\r\n", b"\r\ncontent-encoding: %b\r\n\r\n" % codings)
    once(upstream, head + chunk(packed) + b"0\r\n\r\n")
    aimux = await start()
    answer = await aimux.send(request())
    assert payload_of(answer) == packed
    assert answer.endswith(b"0\r\n\r\n")
    assert "tokens=0+0+0/7" in aimux.log
    assert "error=-" in aimux.log


@pytest.mark.parametrize("ends", [True, False], ids=["whole", "cut"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_a_packet_of_tiny_chunks_is_passed_on_in_many_rounds(
    start: Start, upstream: Upstream, ends: bool, version: str
) -> None:
    """And however many they are, the connection's end comes after them."""
    size = 3 * MAX_CHUNKS + 1
    json = SSE.replace(b"text/event-stream", b"application/json")
    once(upstream, json + chunk(b"x") * size + (b"0\r\n\r\n" if ends else b""))
    aimux = await start()
    answer = await aimux.send(request(version=version))
    assert answer.endswith(b"0\r\n\r\n") is (ends and version == "1.1")
    assert body_of(answer).count(b"x") == size
    assert ("upstream_lost" in aimux.log) is not ends
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
    assert payload_of(answer) == b"".join(events)
    assert answer.endswith(b"\r\n0\r\n\r\n")
    assert aimux.log.count("a meter's fault") == 1
    assert "status=200" in aimux.log
    assert "tokens=0+0+0/0" in aimux.log


async def test_an_upstream_that_dies_in_mid_stream_ends_with_an_error_event_and_no_clean_end(
    start: Start, upstream: Upstream
) -> None:
    once(upstream, SSE + chunk(EVENT))
    aimux = await start()
    answer = await aimux.send(request(close=False))
    assert payload_of(answer).removeprefix(EVENT).startswith(b"event: error\ndata: ")
    assert not answer.endswith(b"0\r\n\r\n")


SSE_UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
LAST = chunk(EVENT) + chunk(DONE)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize(
    ("head", "cut"),
    [(SSE, LAST), (SSE, LAST[:-1]), (SSE, LAST[:-2]), (SSE, LAST + b"0\r"), (SSE_UNTIL_CLOSE, EVENT + DONE)],
    ids=["between chunks", "half a chunk's end", "no chunk's end", "half the last chunk", "until close"],
)
async def test_an_upstream_that_dies_behind_its_last_event_has_given_a_whole_answer(
    start: Start, upstream: Upstream, head: bytes, cut: bytes, version: str, reset: bool
) -> None:
    """SDKs read on to the end of the body, and fail on a body that has none."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(head + cut)
        await writer.drain()
        if reset:
            await asyncio.sleep(0.05)
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    upstream.script = script
    aimux = await start()
    answer = await aimux.send(request(version=version))
    if version == "1.0":
        assert body_of(answer) == EVENT + DONE
    else:
        assert body_of(answer) in {LAST + b"0\r\n\r\n", chunk(EVENT + DONE) + b"0\r\n\r\n"}
    assert "upstream_lost" not in aimux.log
    assert "tokens=0+0+0/7" in aimux.log


@pytest.mark.parametrize(
    "cut",
    [LAST + b"40\r\ndata: {", LAST + chunk(b"data: {"), LAST + b"5\r\n: h"],
    ids=["a chunk", "an event", "a comment"],
)
async def test_what_begins_behind_it_can_not_be_made_an_end(start: Start, upstream: Upstream, cut: bytes) -> None:
    once(upstream, SSE + cut)
    aimux = await start()
    answer = await aimux.send(request(close=False))
    assert payload_of(answer)[: len(EVENT + DONE)] == EVENT + DONE
    assert not answer.endswith(b"0\r\n\r\n")
    assert "upstream_lost" in aimux.log


async def test_a_length_that_is_not_reached_is_a_failure_whatever_the_last_event_was(
    start: Start, upstream: Upstream
) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 500\r\n\r\n"
    once(upstream, head + DONE)
    aimux = await start()
    answer = await aimux.send(request(close=False))
    assert body_of(answer) == DONE
    assert "upstream_lost" in aimux.log


@pytest.mark.parametrize("missing", [1, 150])
async def test_an_error_event_never_makes_a_length_that_was_not_reached_look_whole(
    start: Start, upstream: Upstream, missing: int
) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n"
    once(upstream, head % (len(EVENT) + missing) + EVENT)
    aimux = await start()
    answer = await aimux.send(request(close=False))
    assert len(body_of(answer)) < len(EVENT) + missing
    assert body_of(answer).startswith(EVENT)
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
    assert payload_of(answer).startswith(EVENT + b"event: error\n")
    assert not answer.endswith(b"\r\n0\r\n\r\n")
    assert "upstream_lost" in aimux.log


@pytest.mark.parametrize("end", [b"", b"0\r\n\r\n"])
async def test_half_an_event_is_followed_by_nothing_that_would_be_read_as_its_rest(
    start: Start, upstream: Upstream, end: bytes
) -> None:
    once(upstream, SSE + chunk(EVENT + EVENT[:-5]) + end)
    aimux = await start()
    answer = await aimux.send(request(close=False))
    assert payload_of(answer) == EVENT + EVENT[:-5]
    assert not answer.endswith(b"\r\n0\r\n\r\n")
    assert "upstream_lost" in aimux.log


async def test_a_clean_early_end_is_no_clean_end(start: Start, upstream: Upstream) -> None:
    """SDKs take a clean early EOF for a short answer."""
    upstream.answer = SSE + chunk(EVENT) + b"0\r\n\r\n"
    aimux = await start()
    answer = await aimux.send(request(close=False))
    assert b"event: error\ndata: " in answer
    assert not answer.endswith(b"0\r\n\r\n")


async def test_a_json_answer_that_breaks_off_breaks_the_connection(start: Start, upstream: Upstream) -> None:
    once(upstream, b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"a":')
    aimux = await start()
    answer = await aimux.send(request(close=False))
    assert body_of(answer) == b'{"a":'


async def test_an_answer_that_ends_with_the_connection_is_chunked_for_the_client(
    start: Start, upstream: Upstream
) -> None:
    once(upstream, b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + EVENT + DONE)
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


async def test_a_client_that_leaves_stops_its_upstream(start: Start, upstream: Upstream) -> None:
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


@pytest.mark.parametrize(
    ("sent", "ended", "told"),
    [
        (chunk(EVENT + DONE), True, False),
        (chunk(EVENT) + chunk(DONE) + b"5\r\n", False, False),
        (chunk(DONE + b"data:"), False, False),
        (chunk(EVENT), False, True),
    ],
    ids=["whole", "in a chunk", "in an event", "only silent"],
)
async def test_a_body_that_is_not_ended_behind_the_last_event_is_ended_here(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, sent: bytes, ended: bool, told: bool
) -> None:
    """caidaoli/ccLoad#81: clients wait for the end. Anything else is given the time that it may be silent."""
    monkeypatch.setattr("aimux.relay.pool.SWEEP_SECONDS", 0.01)
    monkeypatch.setattr("aimux.relay.pool.LINGER_SECONDS", 0.05)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(SSE + sent)
        await reader.read()

    upstream.script = script
    aimux = await start()
    aimux.app.gateway.pool.idle_timeout = 30.0 if ended else 0.2
    answer = await aimux.send(request())
    assert answer.endswith(b"0\r\n\r\n") is ended
    assert (b"event: error" in answer) is told
    await upstream.until(lambda: upstream.open == 0)
