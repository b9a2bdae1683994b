"""Clients that take their time, or all the room there is: deadlines and bounds hold, and honest clients go on.

The constants are made small; what is waited for is the end of a connection, never a time.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from aimux.front import bounds
from aimux.http.framing import chunk
from tests.certificates.certificates import Issued
from tests.gateway.conftest import Start, Upstream

from .conftest import Aimux, StrictUpstream, ask, head

BIG = 4_000_000


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "KEEP_ALIVE_SECONDS": 0.3,
        "HANDSHAKE_SECONDS": 0.3,
        "BODY_SECONDS": 0.3,
        "BODY_GRACE": 0.3,
        "SEND_SECONDS": 0.3,
        "LINGER_SECONDS": 0.3,
        "SWEEP_SECONDS": 0.05,
    }.items():
        monkeypatch.setattr(bounds, name, value)


async def honest(aimux: Aimux) -> None:
    answer = await ask(aimux, head("GET /plain/v1/honest HTTP/1.1", tag="honest", close=True))
    assert answer.endswith(b"\r\n\r\nhonest")


async def drip(writer: asyncio.StreamWriter, piece: bytes) -> None:
    """One piece after the other, until the connection is gone."""
    while not writer.transport.is_closing():
        writer.write(piece)
        await asyncio.sleep(0.02)


async def rest(aimux: Aimux, sent: bytes, piece: bytes) -> bytes:
    """What comes back, to the connection's end, while a client drips."""
    reader, writer = await aimux.connect()
    writer.write(sent)
    dripping = asyncio.create_task(drip(writer, piece))
    try:
        async with asyncio.timeout(10):
            await honest(aimux)
            return await reader.read()
    except ConnectionResetError:
        return b"reset"
    finally:
        dripping.cancel()


class Faulty:
    """A connection whose deadlines nobody can tell."""

    def __init__(self, others: set[object]) -> None:
        self.transport, self._others = self, others
        others.add(self)

    def sweep(self, _now: float) -> None:
        raise KeyError("odd")

    def abort(self) -> None:
        self._others.discard(self)


async def test_a_fault_in_one_connections_deadline_leaves_the_others_theirs(aimux: Aimux) -> None:
    Faulty(aimux.app.gateway.server.connections)  # type: ignore[arg-type]
    reader, _ = await aimux.connect()
    async with asyncio.timeout(10):
        assert not await reader.read()
    assert aimux.log.count("a fault in a connection's deadlines") == 1


@pytest.mark.parametrize("sent", [b"", b"POST /plain/v1/chat HT", head()[:-2]], ids=["nothing", "a line", "a head"])
async def test_a_slow_head_has_a_deadline_however_busy_it_looks(
    aimux: Aimux, upstream: StrictUpstream, sent: bytes
) -> None:
    await rest(aimux, sent, b"X-A: b\r\n" if sent.endswith(b"\r\n") else b"P")
    assert b"evil" not in upstream.raw


async def test_an_idle_connection_has_one_too(aimux: Aimux, upstream: StrictUpstream) -> None:
    reader, writer = await aimux.connect()
    writer.write(head("GET /plain/v1/one HTTP/1.1", tag="one"))
    async with asyncio.timeout(10):
        assert (await reader.read()).endswith(b"one")
    await honest(aimux)


SLOW_BODIES = {
    "a body that stops": (head(body := "POST /plain/v1/chat HTTP/1.1", "Content-Length: 90000") + b"hello", b""),
    "a body of which nothing comes": (head(body, "Content-Length: 90000"), b""),
    "a byte now and then": (head(body, "Content-Length: 90000"), b"x"),
    "a chunk now and then": (head(body, "Transfer-Encoding: chunked"), b"1\r\nx\r\n"),
    "an endless chunk extension": (head(body, "Transfer-Encoding: chunked") + b"1;", b"x"),
    "endless trailers": (head(body, "Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\n", b"X-A: b\r\n"),
}


@pytest.mark.parametrize(("sent", "piece"), SLOW_BODIES.values(), ids=SLOW_BODIES)
async def test_a_slow_body_is_a_408(aimux: Aimux, upstream: StrictUpstream, sent: bytes, piece: bytes) -> None:
    answer = await rest(aimux, sent, piece)
    if answer != b"reset":  # what still came in meanwhile may cost the client its answer
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in answer.lower()
        assert b"did not arrive" in answer
    assert "status=408" in aimux.log
    assert b"evil" not in upstream.raw
    assert "Traceback" not in aimux.log


async def test_a_body_that_takes_long_but_goes_on_is_served(
    aimux: Aimux, upstream: StrictUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three times as long as the longest silence and the grace."""
    monkeypatch.setattr(bounds, "BODY_RATE", 10)
    pieces = 45
    reader, writer = await aimux.connect()
    writer.write(head("POST /plain/v1/chat HTTP/1.1", f"Content-Length: {pieces}", tag="patient", close=True))
    for _ in range(pieces):
        await asyncio.sleep(0.02)
        writer.write(b"x")
    async with asyncio.timeout(10):
        assert (await reader.read()).endswith(b"patient")
    assert upstream.requests[0].endswith(b"\r\n\r\n" + b"x" * pieces)


async def stubborn(aimux: Aimux, request: bytes) -> socket.socket:
    """A client with a small buffer that reads nothing."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", aimux.port))
    await loop.sock_sendall(client, request)
    return client


def answers_big(upstream: Upstream) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.read(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % BIG + bytes(BIG))
        await reader.read()

    upstream.script = script


async def test_who_takes_nothing_of_a_stream_is_let_go_and_its_upstream_is_stopped(
    start: Start, upstream: Upstream
) -> None:
    stopped = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await upstream.read(reader)
        if b" /v1/honest " in request:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhonest")
            return
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            while not writer.transport.is_closing():
                writer.write(chunk(b":" * 65_000 + b"\n\n"))
                await writer.drain()
        finally:
            stopped.set()

    upstream.script = script
    # The upstream's own silence is none of its fault: the pool would end it after stream_idle_timeout.
    aimux = await start(stream_idle_timeout=0.1)
    client = await stubborn(aimux, head("GET /plain/v1/stream HTTP/1.1"))
    async with asyncio.timeout(10):
        await honest(aimux)
        await stopped.wait()
        while not aimux.log.count("error=client_gone"):
            await asyncio.sleep(0)
    assert "does not read its answer" in aimux.log
    assert "upstream_lost" not in aimux.log
    client.close()


async def test_who_leaves_a_whole_answer_lying_is_let_go(start: Start, upstream: Upstream) -> None:
    """Nothing is streaming any more: the bytes lie with aimux, and the connection counts as idle."""
    answers_big(upstream)
    aimux = await start()
    client = await stubborn(aimux, head("GET /plain/v1/big HTTP/1.1"))
    server = aimux.app.gateway.server
    async with asyncio.timeout(10):
        while not server.open:
            await asyncio.sleep(0)
        while server.open:
            await asyncio.sleep(0.01)
    assert "does not read its answer" in aimux.log
    client.close()


async def test_a_client_that_reads_slowly_is_not_let_go(start: Start, upstream: Upstream) -> None:
    answers_big(upstream)
    aimux = await start()
    client = await stubborn(aimux, head("GET /plain/v1/big HTTP/1.1", close=True))
    loop = asyncio.get_running_loop()
    received = 0
    async with asyncio.timeout(20):
        for _ in range(40):
            received += len(await loop.sock_recv(client, 4096))
            await asyncio.sleep(0.03)
        while data := await loop.sock_recv(client, 1 << 16):
            received += len(data)
    assert received > BIG
    assert "does not read its answer" not in aimux.log
    client.close()


async def test_a_tls_handshake_has_a_deadline(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    issued = Issued()
    for name, content in {"cert.pem": issued.pem, "key.pem": issued.key_pem()}.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    tls = {"enabled": True, "cert_path": str(tmp_path / "cert.pem"), "key_path": str(tmp_path / "key.pem")}
    aimux = await start(tls=tls)
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    async with asyncio.timeout(10):
        for sent in (b"", hello):
            reader, writer = await aimux.connect()
            writer.write(sent)
            try:
                assert await reader.read() == b""
            except ConnectionResetError:
                pass
    context = ssl.create_default_context(cadata=issued.pem.decode())
    reader, writer = await asyncio.open_connection("127.0.0.1", aimux.port, ssl=context, server_hostname="localhost")
    writer.write(head("GET /plain/v1/honest HTTP/1.1", close=True))
    async with asyncio.timeout(10):
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
    writer.close()
    await writer.wait_closed()
