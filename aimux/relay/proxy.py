"""A tunnel through an HTTP proxy, by CONNECT. (RFC 9110, section 9.3.6)"""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING
from urllib.parse import unquote

from aimux.http.tls import connect, secure

if TYPE_CHECKING:
    import ssl

    from yarl import URL

MAX_ANSWER = 16 * 1024


class _Handshake(asyncio.Protocol):
    """Collects the proxy's answer. asyncio's streams won't do: their writer closes the connection when it is freed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.answer: asyncio.Future[bytes] = loop.create_future()
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received.endswith(b"\r\n\r\n"):
            if not self.answer.done():
                self.answer.set_result(self._received)
        elif b"\r\n\r\n" in self._received or len(self._received) > MAX_ANSWER:
            self._fail(ConnectionError("it sent more than an answer to CONNECT"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionError("it hung up"))

    def _fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


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
    transport = await connect(handshake, proxy.host, proxy.port, proxy_context)
    try:
        name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {name} HTTP/1.1", f"Host: {name}"]
        if proxy.user is not None:
            login = f"{unquote(proxy.user)}:{unquote(proxy.password or '')}".encode()
            lines.append(f"Proxy-Authorization: Basic {base64.b64encode(login).decode()}")
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
