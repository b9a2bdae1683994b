"""More connections than there is room for: the longest idle make room, and honest clients go on."""

from __future__ import annotations

import asyncio
import functools
import itertools
import resource
from pathlib import Path

import pytest

from aimux.front import bounds
from tests.gateway.conftest import Start, Upstream
from tests.waiting import until

from .conftest import TOKEN, Aimux, StrictUpstream, head, honest


async def held(aimux: Aimux, condition: int) -> None:
    """Until the server counts that many connections."""
    await until(lambda: aimux.app.gateway.server.open == condition)


async def test_half_open_connections_make_room_for_honest_ones(aimux: Aimux, upstream: StrictUpstream) -> None:
    server = aimux.app.gateway.server
    server.limit = 32
    crowd = []
    for _ in range(10):
        crowd += [await aimux.connect() for _ in range(30)]
        crowd[-1][1].write(head()[:-2])
        await honest(aimux, upstream)
        assert server.open <= 32
    gone = sum(reader.at_eof() or writer.transport.is_closing() for reader, writer in crowd)
    assert gone >= len(crowd) - 32
    assert aimux.log.count("client connections are open") == 1, "and that is said once"


async def test_the_longest_idle_goes_first_and_nobody_who_is_being_served(start: Start, upstream: Upstream) -> None:
    go_on = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await upstream.read(reader):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
            if b" /v1/slow " in request:
                await go_on.wait()
            writer.write(b"ok")

    upstream.script = script
    aimux = await start()
    server = aimux.app.gateway.server
    server.limit = 4
    server.now = functools.partial(next, itertools.count(0.0, 0.001))  # the loop's clock ticks once in a millisecond
    busy = await aimux.connect()
    busy[1].write(head("GET /plain/v1/slow HTTP/1.1"))
    async with asyncio.timeout(10):
        await busy[0].readuntil(b"\r\n\r\n")
        used = [await aimux.connect() for _ in range(2)]
        for reader, writer in used:
            writer.write(head("GET /plain/v1/fast HTTP/1.1"))
            await reader.readuntil(b"ok")
        newest = await aimux.connect()
        await held(aimux, 4)
        newcomer = await aimux.connect()
        assert await used[0][0].read() == b"", "the longest idle one"
        for reader, writer in (newcomer, newest, used[1]):
            writer.write(head("GET /plain/v1/fast HTTP/1.1"))
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK")
        go_on.set()
        await busy[0].readuntil(b"ok")


WRONG = head("POST /plain/v1/chat HTTP/1.1", "{}").replace(TOKEN.encode(), b"wrong-token-0123456789")
REFUSED = {
    "no request": b"\x16",
    "half a body without a token": WRONG.replace(b"{}", b"Content-Length: 5"),
    "chunks without a token": WRONG.replace(b"{}", b"Transfer-Encoding: chunked"),
}


@pytest.mark.parametrize("sent", REFUSED.values(), ids=REFUSED)
async def test_whoever_was_refused_makes_room_first(aimux: Aimux, upstream: StrictUpstream, sent: bytes) -> None:
    server = aimux.app.gateway.server
    server.limit = 8
    waiting = await aimux.connect()
    waiting[1].write(head("GET /plain/v1/patient HTTP/1.1", tag="patient", close=True)[:-2])
    async with asyncio.timeout(20):
        for _ in range(40):
            reader, writer = await aimux.connect()
            writer.write(sent)
            await reader.readuntil(b"\r\n\r\n")
            assert server.open <= 8
        await honest(aimux, upstream)
        waiting[1].write(b"\r\n")
        assert (await waiting[0].read()).endswith(b"patient"), "the longest idle, and no refused one"


async def test_those_that_have_just_gone_make_room_too(aimux: Aimux, upstream: StrictUpstream) -> None:
    """A crowd that hangs up all at once still counts until the loop has told of each: nobody idle goes for it."""
    server = aimux.app.gateway.server
    server.limit = 32
    waiting = await aimux.connect()
    waiting[1].write(head("GET /plain/v1/patient HTTP/1.1", tag="patient", close=True)[:-2])
    await held(aimux, 1)
    before = set(server.connections)
    await aimux.connect()
    await held(aimux, 2)
    (newcomer,) = server.connections - before
    for _ in range(2):
        reader, writer = await aimux.connect()
        writer.write(REFUSED["half a body without a token"])
        await reader.readuntil(b"\r\n\r\n")
    gone = [each for each in server.connections if each.spent]
    assert len(gone) == 2
    for each in gone:
        each.transport.abort()
    counted = server.open
    server._make_room(newcomer)
    assert server.open == counted - len(gone)
    waiting[1].write(b"\r\n")
    async with asyncio.timeout(10):
        assert (await waiting[0].read()).endswith(b"patient")


async def test_an_answer_that_is_still_being_taken_is_not_cut_for_a_newcomer(start: Start, upstream: Upstream) -> None:
    size = 3_000_000

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + bytes(size))
        await reader.read()

    upstream.script = script
    aimux = await start()
    server = aimux.app.gateway.server
    server.limit = 2
    reader, writer = await aimux.connect()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(head("GET /plain/v1/large HTTP/1.1", close=True))
    async with asyncio.timeout(10):
        while not upstream.requests:
            await asyncio.sleep(0.001)
        for _ in range(10):
            await aimux.connect()
            await asyncio.sleep(0)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert (await reader.read()).endswith(bytes(size))


async def test_with_all_of_them_busy_a_new_one_is_told_to_come_back(start: Start, upstream: Upstream) -> None:
    go_on = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
        await go_on.wait()
        writer.write(b"ok")
        await writer.drain()

    upstream.script = script
    aimux = await start()
    aimux.app.gateway.server.limit = 3
    busy = [await aimux.connect() for _ in range(3)]
    async with asyncio.timeout(10):
        for reader, writer in busy:
            writer.write(head("GET /plain/v1/slow HTTP/1.1"))
            await reader.readuntil(b"\r\n\r\n")
        for _ in range(20):
            reader, writer = await aimux.connect()
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nretry-after: 1\r\n" in answer
        go_on.set()
        for reader, _ in busy:
            assert await reader.readexactly(2) == b"ok"
    assert aimux.log.count("client connections are open") == 1
    assert TOKEN not in aimux.log


def test_the_cap_leaves_descriptors_for_the_upstreams_and_for_files(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, limit in {1024: 480, 256: 96, 20: 1, 1 << 20: bounds.MAX_CONNECTIONS, -1: bounds.MAX_CONNECTIONS}.items():
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, -1))
        assert bounds.connection_limit() == limit


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
async def test_descriptors_that_run_out_are_missed_and_that_is_said_once(
    aimux: Aimux, upstream: StrictUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "SWEEP_SECONDS", 0.001)
    monkeypatch.setattr(bounds, "KEEP_ALIVE_SECONDS", 300.0)
    await aimux.connect()
    server = aimux.app.gateway.server
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for times in (1, 2):
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            async with asyncio.timeout(10):
                while not server._exhausted:
                    await asyncio.sleep(0.001)
                await asyncio.sleep(0.01)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert aimux.log.count("new clients are disconnected: Too many open files") == times
        await honest(aimux, upstream)
        await until(lambda: not server._exhausted)
