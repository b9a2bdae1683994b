"""TLS over a transport: whatever pieces the bytes come in, and however the other side ends."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.certificates import ServerTLS, TLSFiles
from aimux.http.tls import PIECE, TLSTransport, connect
from tests.relay.sockets import Wire


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's, and that of a client who trusts it."""
    files = TLSFiles.self_signed(tmp_path_factory.mktemp("tls"), "")
    return ServerTLS(files).context, ssl.create_default_context(cafile=str(files.cert_path))


class App(asyncio.Protocol):
    """Keeps what it is told."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.got = b""
        self.calls: list[str] = []
        self.error: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.calls.append("made")

    def data_received(self, data: bytes) -> None:
        assert data
        self.got += data

    def eof_received(self) -> bool:
        self.calls.append("eof")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = exc
        self.calls.append("lost")

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")


class Side:
    def __init__(self, context: ssl.SSLContext, **options: Any) -> None:
        self.app = App()
        self.wire = Wire()
        self.wire.end = self.tls = TLSTransport(self.app, context, **options)

    def take(self, other: Side, sizes: list[int]) -> bool:
        """Give it what the other side has sent, in packets of these sizes and then the rest."""
        data = other.wire.take()
        for size in sizes:
            if data[:size] and not self.wire.closed:
                self.tls.data_received(data[:size])
            data = data[size:]
        if data and not self.wire.closed:
            self.tls.data_received(data)
        return bool(data)


class Link:
    """A client and a server whose bytes move when somebody says so."""

    def __init__(self, contexts: tuple[ssl.SSLContext, ssl.SSLContext], sizes: list[int] | None = None) -> None:
        self.server = Side(contexts[0])
        self.client = Side(contexts[1], server_hostname="localhost")
        self.server.tls.connection_made(self.server.wire)
        self.client.tls.connection_made(self.client.wire)
        self.move(sizes)

    def move(self, sizes: list[int] | None = None) -> None:
        for _ in range(4):
            self.server.take(self.client, sizes or [])
            self.client.take(self.server, sizes or [])


@pytest.fixture
async def link(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> AsyncIterator[Link]:
    made = Link(contexts)
    assert made.client.app.calls == made.server.app.calls == ["made"]
    yield made
    for side in (made.client, made.server):
        side.tls.connection_lost(None)


@given(
    said=st.lists(st.tuples(st.booleans(), st.integers(1, 5 * PIECE)), max_size=6),
    sizes=st.lists(st.integers(1, 3 * PIECE), max_size=12),
)
def test_bytes_arrive_as_they_were_sent_however_they_are_cut(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], said: list[tuple[bool, int]], sizes: list[int]
) -> None:
    async def work() -> None:
        link = Link(contexts, sizes)
        wanted = {True: b"", False: b""}
        for number, (by_client, size) in enumerate(said):
            data = bytes([number]) * size
            (link.client if by_client else link.server).tls.writelines([data[:1], data[1:]])
            wanted[by_client] += data
        link.move(sizes)
        assert (link.server.app.got, link.client.app.got) == (wanted[True], wanted[False])

    asyncio.run(work())


async def test_several_records_in_one_packet_are_one_piece_to_the_application(link: Link) -> None:
    for word in (b"one ", b"two ", b"three"):
        link.server.tls.write(word)
    packets: list[bytes] = []
    link.client.app.data_received = lambda data: packets.append(data)  # type: ignore[method-assign]
    link.move()
    assert packets == [b"one two three"]


async def test_an_end_that_is_said_is_an_end(link: Link) -> None:
    link.server.tls.write(b"bye")
    link.server.tls.close()
    link.server.tls.write(b"too late")
    link.move()
    assert link.client.app.got == b"bye"
    assert link.client.app.calls == ["made", "eof"]
    assert link.client.wire.closed
    link.client.tls.connection_lost(None)
    assert link.client.app.error is None


async def test_a_half_closed_side_drops_what_still_comes(link: Link) -> None:
    link.server.tls.write(b"no more, please")
    link.server.tls.write_eof()
    assert link.server.wire.half_closed
    assert not link.server.tls.is_closing()
    link.client.tls.write(b"x" * 100_000)
    link.server.take(link.client, [])
    assert link.server.app.got == b""
    assert not link.server.wire.closed
    link.client.take(link.server, [])
    assert link.client.app.got == b"no more, please"


async def test_an_end_that_is_not_said_is_an_error(link: Link) -> None:
    """Otherwise whoever can cut a connection could make a short answer look whole."""
    link.client.tls.eof_received()
    link.client.tls.connection_lost(None)
    assert isinstance(link.client.app.error, ssl.SSLEOFError)


async def test_bytes_that_are_no_tls_end_it_and_the_peer_is_told(link: Link) -> None:
    link.server.tls.write(b"good")
    good = link.server.wire.take()
    link.client.tls.data_received(good + b"\x17\x03\x03\x00\x20" + bytes(32))
    assert link.client.app.got == b"good", "what came before is not lost"
    assert link.client.wire.closed
    assert link.client.wire.take(), "an alert"
    link.client.tls.connection_lost(None)
    assert isinstance(link.client.app.error, ssl.SSLError)


async def test_back_pressure_reaches_across(link: Link) -> None:
    link.server.wire.room = 1000
    link.server.tls.write(b"x" * 2000)
    link.server.tls.pause_reading()
    assert not link.server.wire.reading
    link.server.tls.resume_reading()
    assert link.server.wire.reading
    assert link.server.tls.get_write_buffer_size() > 2000
    link.move()
    assert link.server.app.calls == ["made", "pause", "resume"]


async def test_plain_http_on_a_tls_port_is_refused_with_an_alert(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    server = Side(contexts[0], handshake_seconds=60)
    server.tls.connection_made(server.wire)
    server.tls.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert server.wire.closed
    server.tls.connection_lost(None)
    assert server.app.calls == ["made", "lost"], "it could be counted, and closed"


async def test_a_server_that_hangs_up_in_the_handshake_is_an_error(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        with pytest.raises(ConnectionResetError):
            await connect(App(), "127.0.0.1", server.sockets[0].getsockname()[1], contexts[1])


async def test_nobody_trusts_another_name(contexts: tuple[ssl.SSLContext, ssl.SSLContext], tmp_path: Path) -> None:
    strangers = ServerTLS(TLSFiles.self_signed(tmp_path, "")).context
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: TLSTransport(App(), strangers), "127.0.0.1", 0)
    async with server:
        app = App()
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(app, "localhost", server.sockets[0].getsockname()[1], contexts[1])
        assert app.calls == []


async def test_a_server_does_not_renegotiate(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """TLS 1.2 would let a peer halt what is being written until it has answered; 1.3 has done away with it."""
    assert contexts[0].options & ssl.OP_NO_RENEGOTIATION
