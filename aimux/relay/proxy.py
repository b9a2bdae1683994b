"""A tunnel through an HTTP proxy, by CONNECT. (RFC 9110, section 9.3.6)"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import ssl
from typing import Any
from urllib.request import getproxies, proxy_bypass

from yarl import URL

from aimux.http.tls import connect, secure

MAX_ANSWER = 16 * 1024


class UnusableProxy(OSError):
    """The environment names a proxy that aimux can't go through. The message names it, without a password."""


def reason(error: Exception) -> str:
    """Why there is no connection, in a few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or error})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


class _Handshake(asyncio.Protocol):
    """Collects the proxy's answer. asyncio's streams won't do: their writer closes the connection when it is freed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.answer: asyncio.Future[bytes] = loop.create_future()
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if end and (not rest or head[9:12] != b"200"):  # a refusal is a page, often
            if not self.answer.done():
                self.answer.set_result(head)
        elif end or len(self._received) > MAX_ANSWER:
            self._fail(ConnectionError("it sent more than an answer to CONNECT"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionError("it hung up"))

    def _fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


def proxy_for(scheme: str, host: str, port: int) -> URL | None:
    """The proxy that HTTPS_PROXY, HTTP_PROXY and NO_PROXY name for a host. Raises UnusableProxy."""
    proxies = getproxies()
    named = proxies.get(scheme)
    if not named or proxy_bypass(f"{host}:{port}") or _in_networks(host, proxies.get("no", "")):
        return None
    variable = f"{scheme.upper()}_PROXY"
    try:
        proxy = URL(named if "://" in named else f"http://{named}")
        usable = proxy.scheme in {"http", "https"}
        place = f"{proxy.scheme}://{proxy.host}" + (f":{proxy.port}" if proxy.port else "")
        complete = bool(proxy.host and proxy.port)
    except ValueError:
        raise UnusableProxy(f"the proxy in {variable} is not a URL: write http://HOST:PORT") from None
    if not usable:
        raise UnusableProxy(
            f"the proxy {place} in {variable} can't be used: aimux takes http:// and https:// proxies, no {proxy.scheme}://"
        )
    if not complete:
        raise UnusableProxy(f"the proxy in {variable} has no host: write http://HOST:PORT")
    return proxy


def _in_networks(host: str, excepted: str) -> bool:
    """NO_PROXY may have networks in it (`10.0.0.0/8`), which Python does not know."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    for entry in excepted.split(","):
        try:
            if "/" in entry and address in ipaddress.ip_network(entry.strip(), strict=False):
                return True
        except ValueError:
            continue
    return False


def proxy_options(url: URL) -> dict[str, Any]:
    """What aiohttp has to be told for the same way to this URL. It reads the environment otherwise itself: it knows no
    proxy without a scheme and no port in NO_PROXY, and a login in Latin-1 alone. Raises UnusableProxy."""
    proxy = proxy_for(url.scheme, url.host or "", url.port or 443)
    if proxy is None or proxy.user is None:
        return {"proxy": proxy}
    # aiohttp makes `Proxy-Authorization` of it, for a tunnel and for a request that the proxy itself passes on.
    return {"proxy": proxy.with_user(None), "proxy_headers": {"Authorization": _login(proxy)}}


def _login(proxy: URL) -> str:
    login = f"{proxy.user}:{proxy.password or ''}".encode()  # decoded, as yarl gives them
    return f"Basic {base64.b64encode(login).decode()}"


def unusable_proxies() -> list[str]:
    """What is wrong with the proxies that the environment names, one sentence each, without a password."""
    found = []
    for scheme in ("https", "http"):
        try:
            proxy_for(scheme, "example.com", 443)
        except UnusableProxy as error:
            found.append(str(error))
    return found


async def open_tunnel(
    proxy: URL,
    host: str,
    port: int,
    app: asyncio.Protocol,
    context: ssl.SSLContext | None,
    proxy_context: ssl.SSLContext | None,
) -> None:
    """Connect `app` to `host` through the proxy. `context`: TLS to the host; `proxy_context`: TLS to the proxy itself.

    Raises OSError, with the proxy's name in it where the proxy is at fault.
    """
    assert proxy.host
    assert proxy.port
    handshake = _Handshake(asyncio.get_running_loop())
    try:
        transport = await connect(handshake, proxy.host, proxy.port, proxy_context)
    except (OSError, ssl.CertificateError) as error:
        raise ConnectionError(f"the proxy {proxy.host}:{proxy.port} can't be reached: {reason(error)}") from error
    try:
        name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {name} HTTP/1.1", f"Host: {name}"]
        if proxy.user is not None:
            lines.append(f"Proxy-Authorization: {_login(proxy)}")
        transport.write("\r\n".join([*lines, "", ""]).encode())
        try:
            answer = await handshake.answer
        except OSError as error:
            raise ConnectionError(f"the proxy {proxy.host}:{proxy.port} gave no answer: {error}") from None
        if answer[9:12] != b"200":
            status = answer.split(b"\r\n", 1)[0].decode("latin-1")
            raise ConnectionError(f"the proxy {proxy.host}:{proxy.port} answered {status!r}")
        if context is not None:
            await secure(transport, app, context, host)
        else:
            transport.set_protocol(app)
            app.connection_made(transport)
    except BaseException:
        transport.abort()
        raise
