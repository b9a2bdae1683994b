"""Connections to upstreams: TLS, proxies, reuse, and what is said when there is none. On both event loops."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from aimux.certificates import ServerTLS, TLSFiles
from aimux.http.turn import Turn, in_turn
from aimux.relay.errors import ConnectError, ConnectTimeout, HeadTimeout
from aimux.relay.liveness import is_unheard
from aimux.relay.pool import Origin, Pool
from aimux.relay.proxy import unusable_proxies

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
GET = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"]

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def runner(work: Coroutine[Any, Any, None]) -> None:
        factory = uvloop.new_event_loop if request.param == "uvloop" else None
        with asyncio.Runner(loop_factory=factory) as loop:
            loop.run(asyncio.wait_for(work, 20))

    return runner


@contextlib.asynccontextmanager
async def listening(
    handler: Handler, context: ssl.SSLContext | None = None, *, at: tuple[str, int] = ("127.0.0.1", 0)
) -> AsyncIterator[int]:
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handler(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(connected, *at, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.readuntil(b"\r\n\r\n"):
        writer.write(ANSWER)


async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(ANSWER)


class Proxy:
    """A CONNECT proxy that remembers what it was asked."""

    def __init__(self, status: bytes = b"200 Connection established") -> None:
        self.status = status
        self.asked: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head)
        writer.write(b"HTTP/1.1 " + self.status + b"\r\nx: y\r\n\r\n")
        host, _, port = head.split()[1].rpartition(b":")
        if not self.status.startswith(b"200"):
            return
        source, target = await asyncio.open_connection(host.decode(), int(port))

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                target.write(data)

        try:
            ways = [asyncio.create_task(copy(reader, target)), asyncio.create_task(copy(source, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        finally:
            target.transport.abort()


@contextlib.asynccontextmanager
async def pool(**options: Any) -> AsyncIterator[Pool]:
    made = Pool(**options)
    try:
        yield made
    finally:
        await made.close()


async def fetch(pool: Pool, where: str | Origin) -> int:
    origin = Origin.parse(where) if isinstance(where, str) else where

    async def work(turn: Turn[None]) -> int:
        exchange, head = await pool.request(turn, origin, "GET", GET, 5)
        assert await exchange.peek(lambda payload: len(payload) == 2, 5) == b"ok"
        return head.status

    return await in_turn(work)


@pytest.fixture
def no_proxy_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context and that of a client who trusts it."""
    files = TLSFiles.self_signed(tmp_path, "")
    server = ServerTLS(files).context
    return server, ssl.create_default_context(cafile=str(files.cert_path))


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


@pytest.mark.parametrize(
    ("written", "plain"),
    [("me:p%40ss", "me:p@ss"), ("me:p%2541ss", "me:p%41ss"), ("DOM%5Cme:100%25", "DOM\\me:100%"), ("me", "me:")],
)
def test_a_proxy_tunnels_tls_and_sees_nothing_of_it(
    run: Run,
    certificate: tuple[ssl.SSLContext, ssl.SSLContext],
    monkeypatch: pytest.MonkeyPatch,
    written: str,
    plain: str,
) -> None:
    server, trusting = certificate
    proxy = Proxy()

    async def work() -> None:
        async with listening(serve, server) as port, listening(proxy) as proxy_port, pool(ssl_context=trusting) as made:
            monkeypatch.setenv("HTTPS_PROXY", f"http://{written}@127.0.0.1:{proxy_port}")
            origin = Origin.parse(f"https://localhost:{port}")
            for _ in range(2):
                assert await fetch(made, origin) == 200
            assert len(proxy.asked) == 1
            assert proxy.asked[0].startswith(b"CONNECT localhost:%d HTTP/1.1\r\n" % port)
            login = base64.b64encode(plain.encode())
            assert b"Proxy-Authorization: Basic " + login + b"\r\n" in proxy.asked[0]
            monkeypatch.setenv("NO_PROXY", "localhost")
            assert await fetch(made, f"https://localhost:{port}") == 200
            assert len(proxy.asked) == 1

    run(work())


@pytest.mark.parametrize("status", [b"407 Proxy Authentication Required", b"502 Bad Gateway"])
def test_a_proxy_that_refuses_is_named(run: Run, monkeypatch: pytest.MonkeyPatch, status: bytes) -> None:
    async def work() -> None:
        async with listening(Proxy(status)) as proxy_port, pool() as made:
            monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy_port}")
            with pytest.raises(
                ConnectError, match=rf"the proxy 127\.0\.0\.1:{proxy_port} answered .*{status[:3].decode()}"
            ):
                await fetch(made, "http://example.invalid")

    run(work())


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("socks5://me:secret@127.0.0.1:1080", "the proxy socks5://127.0.0.1:1080 in HTTP_PROXY can't be used"),
        ("socks5h://127.0.0.1", "the proxy socks5h://127.0.0.1 in HTTP_PROXY can't be used"),
        ("ftp://127.0.0.1:21", "aimux takes http:// and https:// proxies, no ftp://"),
        ("http://", "the proxy in HTTP_PROXY has no host"),
        ("http://[", "the proxy in HTTP_PROXY is not a URL"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_without_its_password(
    run: Run, monkeypatch: pytest.MonkeyPatch, value: str, said: str
) -> None:
    async def work() -> None:
        monkeypatch.setenv("HTTP_PROXY", value)
        assert [said in problem for problem in unusable_proxies()] == [True]
        async with listening(serve) as port, pool() as made:
            with pytest.raises(ConnectError, match=re.escape(said)) as caught:
                await fetch(made, f"http://127.0.0.1:{port}")
            assert "secret" not in str(caught.value)
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            assert await fetch(made, f"http://127.0.0.1:{port}") == 200

    run(work())


def test_a_proxy_that_cannot_be_reached_is_named_and_not_the_origin(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with pool() as made:
            monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
            with pytest.raises(ConnectError, match=r"the proxy 127\.0\.0\.1:1 can't be reached: Connect"):
                await fetch(made, "http://example.invalid")

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


def test_a_proxy_that_hangs_up_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async def work() -> None:
        async with listening(hang_up) as proxy_port, pool() as made:
            monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{proxy_port}")
            with pytest.raises(ConnectError, match="gave no answer"):
                await fetch(made, "http://example.invalid")

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


def test_a_silent_answer_ends_after_the_idle_timeout(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aimux.relay.pool.SWEEP_SECONDS", 0.02)

    async def stalls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome")
        await reader.read()

    async def work() -> None:
        async with listening(stalls) as port, pool(idle_timeout=0.05) as made:

            async def asked(turn: Turn[None]) -> None:
                exchange, _ = await made.request(turn, Origin.parse(f"http://127.0.0.1:{port}"), "GET", GET, 5)
                assert await exchange.peek(lambda _: False, 10) == b"some"
                assert "no data from the upstream" in str(exchange.error)

            await in_turn(asked)

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
