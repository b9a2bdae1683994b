"""Connections to upstreams once they stand: reuse, silence, and peers that are gone. On both event loops."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time

import pytest

from aimux.http.framing import LAST_CHUNK, MAX_CHUNKS, chunk
from aimux.http.turn import Turn, in_turn
from aimux.relay.errors import ReadError
from aimux.relay.liveness import is_unheard
from aimux.relay.pool import Origin, Pool
from tests.relay.upstreams import ANSWER, GET, Run, fetch, listening, pool, serve, serve_one

pytestmark = pytest.mark.usefixtures("no_proxy_set")


def test_a_connection_serves_again(run: Run) -> None:
    async def work() -> None:
        async with listening(serve) as port, pool() as made:
            origin = Origin.parse(f"http://127.0.0.1:{port}")
            for _ in range(3):
                assert await fetch(made, origin) == 200
            assert made.open_connections == 1
        assert made.open_connections == 0

    run(work())


@pytest.mark.parametrize(("first", "status"), [(ANSWER, 200), (b"", 408)])
def test_a_connection_that_is_given_up_with_a_408_was_only_idle(run: Run, first: bytes, status: int) -> None:
    """It crosses the next request. As a new connection's answer it is one."""
    connections = 0

    async def gives_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if connections == 2:
            return await serve(reader, writer)
        for answer in (first, b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"):
            if answer:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
                await writer.drain()
        return None

    async def work() -> None:
        async with listening(gives_up) as port, pool() as made:
            origin = Origin.parse(f"http://127.0.0.1:{port}")
            if first:
                assert await fetch(made, origin) == 200

            async def asked(turn: Turn[None]) -> None:
                exchange, head = await made.request(turn, origin, "GET", GET, 5)
                exchange.discard()
                assert (head.status, connections) == (status, 2 if first else 1)

            await in_turn(asked)

    run(work())


def test_a_new_connection_that_ends_without_an_answer_is_not_asked_again(run: Run) -> None:
    """The upstream may have done what it was asked for."""
    connections = 0

    async def ends(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")

    async def work() -> None:
        async with listening(ends) as port, pool() as made:
            with pytest.raises(ReadError, match="closed the connection without an answer"):
                await fetch(made, f"http://127.0.0.1:{port}")
        assert connections == 1

    run(work())


def test_an_answer_that_nobody_asked_for_closes_the_connection(run: Run) -> None:
    spoke = asyncio.Event()

    async def chatty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)
        await spoke.wait()
        writer.write(ANSWER)
        await reader.read()
        spoke.clear()

    async def work() -> None:
        async with listening(chatty) as port, pool() as made:
            assert await fetch(made, f"http://127.0.0.1:{port}") == 200
            spoke.set()
            while made.open_connections:
                await asyncio.sleep(0)

    run(work())


async def stalls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An upstream that stops in the middle of its answer."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome")
    await reader.read()


def test_a_silent_answer_ends_after_the_idle_timeout(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aimux.relay.pool.SWEEP_SECONDS", 0.02)

    async def work() -> None:
        async with listening(stalls) as port, pool(idle_timeout=0.05) as made:

            async def asked(turn: Turn[None]) -> None:
                exchange, _ = await made.request(turn, Origin.parse(f"http://127.0.0.1:{port}"), "GET", GET, 5)
                assert await exchange.peek(lambda _: False, 10) == b"some"
                assert "no data from the upstream" in str(exchange.error)

            await in_turn(asked)

    run(work())


class Faulty:
    """A sink that fails where it is told that the answer breaks off."""

    def write(self, data: bytes) -> None: ...

    observe = write

    def flush(self) -> None: ...

    def complete(self) -> None: ...

    def over(self) -> bool:
        return False

    def broken(self, _error: object) -> bytes:
        raise KeyError("odd")


def test_silent_answers_end_whatever_their_sinks_do(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aimux.relay.pool.SWEEP_SECONDS", 0.02)

    async def work() -> None:
        async with listening(stalls) as port, pool(idle_timeout=0.05) as made:
            origin = Origin.parse(f"http://127.0.0.1:{port}")

            async def asked(turn: Turn[None]) -> None:
                exchange, _ = await made.request(turn, origin, "GET", GET, 5)
                assert not exchange.begin(exchange.outlet(http11=True), Faulty(), b"")
                await exchange.rest()
                assert "no data from the upstream" in str(exchange.error)

            await asyncio.gather(in_turn(asked), in_turn(asked))

    run(work())


def test_a_connection_that_ended_behind_its_answer_is_not_kept(
    run: Run, certificate: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    """With TLS one packet can hold more chunks than are read at once, and the end of the connection."""
    server, trusting = certificate
    size = 3 * MAX_CHUNKS

    async def ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head + chunk(b"x") * size + LAST_CHUNK)
        writer.close()
        await writer.wait_closed()

    async def work() -> None:
        async with listening(ends, server) as port, pool(ssl_context=trusting) as made:
            origin = Origin.parse(f"https://localhost:{port}")

            async def asked(turn: Turn[None]) -> None:
                exchange, _ = await made.request(turn, origin, "GET", GET, 5)
                assert await exchange.peek(lambda _: False, 60) == b"x" * size
                assert exchange.error is None

            await in_turn(asked)
            assert made.open_connections == 0

    run(work())


class OnceEach:
    """Answers the first request of a connection, and nothing else on it."""

    def __init__(self) -> None:
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await serve_one(reader, writer)
        await reader.read()


async def two_at_once(made: Pool, origin: Origin) -> None:
    """Leaves two connections idle."""
    assert await asyncio.gather(fetch(made, origin), fetch(made, origin)) == [200, 200]
    assert made.open_connections == 2


def test_connections_that_reach_nobody_are_replaced(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a change of the network: the request is asked anew, and the other idle ones are not tried at all."""
    monkeypatch.setattr("aimux.relay.pool.SWEEP_SECONDS", 0.02)
    monkeypatch.setattr("aimux.relay.pool.is_unheard", lambda _transport: True)
    upstream = OnceEach()

    async def work() -> None:
        async with listening(upstream) as port, pool() as made:
            origin = Origin.parse(f"http://127.0.0.1:{port}")
            await two_at_once(made, origin)
            assert await fetch(made, origin) == 200
            assert (upstream.connections, made.open_connections) == (3, 1)

    run(work())


def test_a_machine_that_slept_connects_anew(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its clock has gone on, and the loop's has not: what was idle looks fresh and may be gone."""
    monkeypatch.setattr("aimux.relay.pool.SWEEP_SECONDS", 0.02)
    upstream, clock = OnceEach(), time.time

    async def work() -> None:
        async with listening(upstream) as port, pool() as made:
            origin = Origin.parse(f"http://127.0.0.1:{port}")
            await two_at_once(made, origin)
            monkeypatch.setattr("time.time", lambda: clock() + 3600)
            while made.open_connections:
                await asyncio.sleep(0.005)
            assert await fetch(made, origin) == 200
            monkeypatch.setattr("time.time", clock)  # set back: nothing slept
            await asyncio.sleep(0.05)
            assert made.open_connections == 1

    run(work())


def test_a_peer_that_takes_its_time_is_heard(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aimux.relay.pool.SWEEP_SECONDS", 0.02)
    asked, looked = asyncio.Event(), []

    def unheard(transport: asyncio.Transport) -> bool:
        looked.append(is_unheard(transport))
        return looked[-1]

    monkeypatch.setattr("aimux.relay.pool.is_unheard", unheard)

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve_one(reader, writer)
        await reader.readuntil(b"\r\n\r\n")
        while len(looked) < 3:
            await asyncio.sleep(0.005)
        writer.write(ANSWER)
        asked.set()
        await reader.read()

    async def work() -> None:
        async with listening(slow) as port, pool() as made:
            origin = Origin.parse(f"http://127.0.0.1:{port}")
            assert [await fetch(made, origin), await fetch(made, origin)] == [200, 200]
            assert asked.is_set()
            assert not any(looked)
            (connection,) = made._origins
            assert connection.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

    run(work())
