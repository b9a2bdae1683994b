"""Connections to upstreams through a proxy, and what is said when there is none. On both event loops."""

from __future__ import annotations

import asyncio
import base64
import re
import ssl

import pytest

from aimux.relay.errors import ConnectError
from aimux.relay.pool import Origin
from aimux.relay.proxy import unusable_proxies
from tests.relay.upstreams import Run, fetch, listening, pool, serve

pytestmark = pytest.mark.usefixtures("no_proxy_set")


class Proxy:
    """A CONNECT proxy that remembers what it was asked."""

    def __init__(self, status: bytes = b"200 Connection established", page: bytes = b"") -> None:
        self.status = status
        self.page = page
        self.asked: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head)
        writer.write(b"HTTP/1.1 " + self.status + b"\r\nx: y\r\n\r\n" + self.page)
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


@pytest.mark.parametrize(
    ("excepted", "direct"),
    [
        ("127.0.0.0/8", True),
        ("10.0.0.0/8, 127.0.0.1/32", True),
        ("::/0,10.0.0.0/8", False),
        ("127.0.0.0/33", False),
        ("127.0.0.1:1", False),
    ],
)
def test_no_proxy_may_name_networks(run: Run, monkeypatch: pytest.MonkeyPatch, excepted: str, direct: bool) -> None:
    """As Kubernetes, Go and curl have it."""
    proxy = Proxy()

    async def work() -> None:
        async with listening(serve) as port, listening(proxy) as proxy_port, pool() as made:
            monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy_port}")
            monkeypatch.setenv("NO_PROXY", excepted)
            assert await fetch(made, f"http://127.0.0.1:{port}") == 200
            assert bool(proxy.asked) is not direct

    run(work())


@pytest.mark.parametrize("page", [b"", b"<html>"])
@pytest.mark.parametrize("status", [b"407 Proxy Authentication Required", b"502 Bad Gateway"])
def test_a_proxy_that_refuses_is_named(run: Run, monkeypatch: pytest.MonkeyPatch, status: bytes, page: bytes) -> None:
    async def work() -> None:
        async with listening(Proxy(status, page)) as proxy_port, pool() as made:
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


def test_a_proxy_that_speaks_in_the_origins_place_is_none(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    speaks = Proxy(page=b"HTTP/1.1 200 OK\r\n")

    async def work() -> None:
        async with listening(serve) as port, listening(speaks) as proxy_port, pool() as made:
            monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy_port}")
            with pytest.raises(ConnectError, match="it sent more than an answer to CONNECT"):
                await fetch(made, f"http://127.0.0.1:{port}")

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
