"""TLS on a connection of the event loop's: a transport for the protocol above, a protocol of the transport below.

The loop's own TLS keeps 256 kB for each connection to read into, as long as it lives: 1,000 idle WebSockets with TLS on
both sides take 280 MB with it, and 73 with this. OpenSSL does the work here too; this only carries its bytes.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING, Any, cast

from aiohappyeyeballs import start_connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

RECORD = 16 * 1024
"""Bytes that one record holds at most."""
PIECE = 2 * 1024
"""Bytes given to OpenSSL at once: its buffers never shrink, and an idle connection keeps them.

With 4 kB, 1,000 WebSockets with TLS on both sides took 12 MB more. 2 kB cost 20 µs for the 60 kB of a turn, and a
handshake needs as much.
"""
ATTEMPT_DELAY = 0.25
"""Seconds between two addresses of a host."""
_NOBODY = asyncio.Protocol()


def trusting() -> ssl.SSLContext:
    """The system's authorities, and those of SSL_CERT_FILE.

    From 3.13 on Python refuses certificates that lack what RFC 5280 asks for and does not need, such as an authority's
    key identifier. Those of companies' proxies that open TLS often do, and browsers, curl and Node take them.
    """
    context = ssl.create_default_context()
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["http/1.1"])
    return context


class TLSTransport(asyncio.Protocol, asyncio.Transport):
    """A client's `app` gets `connection_made` after the handshake, a server's before: so it also counts clients that
    never end it.

    A peer that ends without saying so is an error to it.
    """

    __slots__ = (
        "_app",
        "_began",
        "_deadline",
        "_error",
        "_incoming",
        "_outgoing",
        "_over",
        "_read",
        "_ready",
        "_refused",
        "_tcp",
        "_tls",
    )

    def __init__(
        self,
        app: asyncio.Protocol,
        context: ssl.SSLContext,
        *,
        server_hostname: str | None = None,
        handshake_seconds: float | None = None,
        refused: Callable[[ssl.SSLError, asyncio.Transport], bytes] | None = None,
    ) -> None:
        """With `server_hostname` this is the client, which also awaits `established`, else the server.

        `refused` is called when a handshake fails, with the connection below; what it returns is sent in the clear.
        """
        self._app = app
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_hostname is None, server_hostname=server_hostname
        )
        self._read: Callable[[int], bytes] = self._tls.read
        self._tcp: asyncio.Transport = None  # type: ignore[assignment]  # set by connection_made
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] | None = loop.create_future()
        """None after the handshake."""
        self._deadline = None if handshake_seconds is None else loop.call_later(handshake_seconds, self.abort)
        self._refused = refused
        self._began = False
        """A part of a handshake has arrived."""
        self._error: Exception | None = None
        self._over = False
        """This side has said that it sends nothing more."""

    async def established(self) -> None:
        """Wait for the handshake. Raises OSError, of which every ssl.SSLError is one; then the connection is closed."""
        if self._ready is not None:
            try:
                await self._ready
            except BaseException:
                self.abort()
                raise

    # --- the connection below -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._tcp = transport  # type: ignore[assignment]  # uvloop's is none by its class
        if self._tls.server_side:
            self._app.connection_made(self)
        self._shake_hands()

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        pieces: list[bytes] = []
        if len(data) <= PIECE and self._ready is None:
            self._incoming.write(data)
            try:
                piece = self._read(RECORD)
            except ssl.SSLError as error:
                self._stop(error)
                return
            if piece and not (self._incoming.pending or self._outgoing.pending):
                self._app.data_received(piece)  # one record: an event of a stream, of which a turn has hundreds
                return
            pieces.append(piece)
            data = b""
        self._take_apart(data, pieces)

    def _take_apart(self, data: bytes, pieces: list[bytes]) -> None:
        """`pieces` is what was read already."""
        try:
            if pieces:
                self._take(pieces)
            view = memoryview(data)
            for begin in range(0, len(data), PIECE):
                self._incoming.write(view[begin : begin + PIECE])
                self._take(pieces)
        except ssl.SSLError as error:
            self._stop(error)
        if self._outgoing.pending:  # an answer to the peer's new keys
            self._send()
        payload = b"".join(pieces)
        if payload:
            self._app.data_received(payload)
        if pieces and not pieces[-1] and not self._app.eof_received():
            self.close()

    def _take(self, pieces: list[bytes]) -> None:
        """Read what there is; b"" where the peer has said that nothing more comes. Raises ssl.SSLError."""
        if self._ready is not None:
            self._began = True
            if self._over or not self._shake_hands():  # over: a piece before this one was no handshake
                return
        try:
            while self._incoming.pending and (not pieces or pieces[-1]):
                pieces.append(self._read(RECORD))
        except ssl.SSLWantReadError:
            pass

    def _shake_hands(self) -> bool:
        assert self._ready is not None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send()
            return False
        except ssl.SSLError as error:
            if self._refused is not None and (told := self._refused(error, self._tcp)):
                self._tcp.write(told)
            self._fail(error)
            return False
        self._send()
        ready, self._ready = self._ready, None
        if self._deadline is not None:
            self._deadline.cancel()
        if not self._tls.server_side:
            self._app.connection_made(self)
        if not ready.done():
            ready.set_result(None)
        return True

    def _send(self) -> None:
        data = self._outgoing.read()
        if data and not self._tcp.is_closing():
            self._tcp.write(data)

    def _stop(self, error: ssl.SSLError) -> None:
        if isinstance(error, ssl.SSLWantReadError):
            self._send()
        else:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._error = error
        self._send()  # the alert that says why
        self._over = True
        self._tcp.close()

    def eof_received(self) -> bool:
        if not self._over:
            self._error = error = ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the peer ended the connection without ending TLS")
            if self._ready is not None and self._began and self._refused is not None:
                self._refused(error, self._tcp)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._over = True
        if self._deadline is not None:
            self._deadline.cancel()
        app, self._app = self._app, _NOBODY  # a cycle that would hold OpenSSL's buffers until a garbage collection
        if self._ready is None or self._tls.server_side:
            app.connection_lost(self._error or exc)
        elif not self._ready.done():
            self._ready.set_exception(
                self._error or exc or ConnectionResetError("the connection ended in the TLS handshake")
            )
            self._ready.exception()  # the caller may have given up connecting

    def pause_writing(self) -> None:
        self._app.pause_writing()

    def resume_writing(self) -> None:
        self._app.resume_writing()

    # --- the protocol above ---------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._over or self._ready is not None or not data:
            return  # in the handshake there is nobody to tell
        if len(data) <= PIECE:
            self._tls.write(data)
            self._tcp.write(self._outgoing.read())
            return
        view = memoryview(data)
        for begin in range(0, len(view), PIECE):
            self._tls.write(view[begin : begin + PIECE])
            self._tcp.write(self._outgoing.read())

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Send nothing more, and drop what still arrives: the peer can read to the end without a reset."""
        if not self._over:
            self._end_tls()
            self._tcp.write_eof()

    def close(self) -> None:
        if not self._over:
            self._end_tls()
        self._tcp.close()

    def _end_tls(self) -> None:
        self._over = True
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # it would wait for the peer, or the handshake isn't over
        self._send()

    def abort(self) -> None:
        self._over = True
        if self._tcp is not None:
            self._tcp.abort()

    def is_closing(self) -> bool:
        return self._tcp.is_closing()

    def pause_reading(self) -> None:
        self._tcp.pause_reading()

    def resume_reading(self) -> None:
        self._tcp.resume_reading()

    def is_reading(self) -> bool:
        return self._tcp.is_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._tcp.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._tcp.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._tcp.get_write_buffer_limits()

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._app

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._app = cast("asyncio.Protocol", protocol)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "sslcontext":
            return self._tls.context
        return self._tcp.get_extra_info(name, default)


async def connect(app: asyncio.Protocol, host: str, port: int, context: ssl.SSLContext | None) -> asyncio.Transport:
    """Connect `app` to `host`, over TLS where there is a context. Raises OSError."""
    if context is None:
        return await _dial(app, host, port)
    tls = TLSTransport(app, context, server_hostname=host)
    await _dial(tls, host, port)
    await tls.established()
    return tls


async def resolve(host: str, port: int) -> list[tuple[Any, ...]]:
    """The addresses of a host, as `getaddrinfo` gives them. Raises OSError."""
    try:
        return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise OSError("it is no host's name") from None


async def _dial(app: asyncio.Protocol, host: str, port: int) -> asyncio.Transport:
    """Over TCP. If an address is silent, the next one is tried a moment later (RFC 8305). The loop would wait until the
    system gives the first one up, after two minutes."""
    loop = asyncio.get_running_loop()
    found = await resolve(host, port)
    if len(found) == 1:
        transport, _ = await loop.create_connection(lambda: app, str(found[0][4][0]), port)
        return transport
    sock = await start_connection(found, happy_eyeballs_delay=ATTEMPT_DELAY, interleave=1, loop=loop)
    try:
        transport, _ = await loop.create_connection(lambda: app, sock=sock)
    except BaseException:
        sock.close()
        raise
    return transport


async def secure(transport: asyncio.Transport, app: asyncio.Protocol, context: ssl.SSLContext, host: str) -> None:
    """Connect `app` to `host` over TLS within a connection that is open already. Raises OSError."""
    tls = TLSTransport(app, context, server_hostname=host)
    transport.set_protocol(tls)
    tls.connection_made(transport)
    await tls.established()
