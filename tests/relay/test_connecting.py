"""Connecting to upstreams: addresses, TLS, deadlines. On both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any

import pytest

from aimux.http.turn import Turn, in_turn
from aimux.relay.errors import ConnectError, ConnectTimeout, HeadTimeout
from aimux.relay.pool import Origin, Pool
from tests.relay.upstreams import GET, Run, fetch, listening, pool, serve

pytestmark = pytest.mark.usefixtures("no_proxy_set")


def test_tls_is_verified(run: Run, certificate: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server, trusting = certificate

    async def work() -> None:
        async with listening(serve, server) as port:
            async with pool(ssl_context=trusting) as made:
                assert await fetch(made, f"https://localhost:{port}") == 200
            async with pool() as made:
                with pytest.raises(ConnectError, match="certificate is not accepted"):
                    await fetch(made, f"https://localhost:{port}")

    run(work())


@contextlib.contextmanager
def silent(address: str) -> Iterator[int]:
    """A port on which nobody answers a connection: its backlog is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((address, 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.mark.parametrize("tls", [False, True])
def test_a_silent_address_holds_nothing_up(
    run: Run,
    certificate: tuple[ssl.SSLContext, ssl.SSLContext],
    monkeypatch: pytest.MonkeyPatch,
    tls: bool,
) -> None:
    """RFC 8305: half-configured IPv6 is the usual one."""
    server, trusting = certificate

    async def work() -> None:
        loop = asyncio.get_running_loop()
        with silent("127.0.0.2") as port:
            real = loop.getaddrinfo

            async def both(host: str, asked: int) -> list[Any]:
                assert host == "localhost"
                addresses = ("127.0.0.2", "127.0.0.3")
                return [found for one in addresses for found in await real(one, asked, type=socket.SOCK_STREAM)]

            monkeypatch.setattr("aimux.http.tls.resolve", both)
            dialled = listening(serve, server if tls else None, at=("127.0.0.3", port))
            async with dialled, pool(connect_timeout=5, ssl_context=trusting) as made:
                began = time.monotonic()
                assert await fetch(made, f"{'https' if tls else 'http'}://localhost:{port}") == 200
                assert time.monotonic() - began < 3

    run(work())


def test_what_is_no_hosts_name_is_said_to_be_none(run: Run) -> None:
    async def work() -> None:
        async with pool() as made:
            with pytest.raises(ConnectError, match=r"can't connect to a\.\.b:80: it is no host's name"):
                await fetch(made, "http://a..b")

    run(work())


def test_connecting_has_a_deadline(run: Run) -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def work() -> None:
        async with listening(silent) as port, pool(connect_timeout=0.1) as made:
            with pytest.raises(ConnectTimeout, match=r"within 0\.1 s"):  # TCP stands, TLS never does
                await fetch(made, f"https://localhost:{port}")
            origin = Origin.parse(f"http://127.0.0.1:{port}")
            with pytest.raises(HeadTimeout):
                await in_turn(lambda turn: made.request(turn, origin, "GET", GET, 0.1))
            assert made.active_exchanges == 0

    run(work())


@pytest.mark.parametrize(
    ("url", "host", "header", "path"),
    [
        ("https://api.example.com", "api.example.com", b"api.example.com", b""),
        ("http://[::1]:81/a/b", "::1", b"[::1]:81", b"/a/b"),
        ("https://api.example.com:443/v1/", "api.example.com", b"api.example.com", b"/v1"),
    ],
)
def test_an_origin_is_read_from_its_url(url: str, host: str, header: bytes, path: bytes) -> None:
    origin = Origin.parse(url)
    assert (origin.host, origin.base_path) == (host, path)
    assert origin.host_header in {header, header + b":443"}


async def test_a_client_does_not_renegotiate() -> None:
    """TLS 1.2 would let a peer halt what is being written until it has answered; 1.3 has done away with it."""
    pool = Pool()
    assert pool._context().options & ssl.OP_NO_RENEGOTIATION
    await pool.close()


def test_whoever_leaves_as_the_connection_is_made_leaves_none_open(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        turns: list[Turn[None]] = []

        def made_now(_: asyncio.BaseTransport) -> None:
            asyncio.get_running_loop().call_soon(turns[0].cancel)

        monkeypatch.setattr("aimux.relay.pool.notice_when_gone", made_now)
        async with listening(serve) as port, pool() as made:
            origin = Origin.parse(f"http://127.0.0.1:{port}")

            async def ask(turn: Turn[None]) -> None:
                turns.append(turn)
                await made.request(turn, origin, "GET", GET, 5)

            with pytest.raises(asyncio.CancelledError):
                await in_turn(ask)
            for _ in range(3):
                await asyncio.sleep(0)
            assert made.open_connections == 0

    run(work())
