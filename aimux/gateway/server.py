"""The front: aiohttp's server, with flow control that reaches the upstream's side, and with deadlines and caps.

None of the deadlines costs a request anything: a sweep looks at all connections every few seconds.
"""

from __future__ import annotations

import asyncio
import fcntl
import heapq
import json
import logging
import sys
import termios
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from aimux.gateway import caps

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import StreamReader

log = logging.getLogger("aimux.gateway")

READ_BUFFER = 256 * 1024
"""A request of the vendors' CLIs is 50–90 kB: with aiohttp's own 64 kB reading would stop and start within one."""

_NO_HTTP = "This is no HTTP request that has only one reading"
_BUSY = "aimux has as many connections as it can hold; try again in a moment."


class BodyError(Exception):
    """The rest of the body can't be read: it breaks HTTP's rules."""


class SlowBody(BodyError):
    """The rest of the body does not come, or comes too slowly."""


class Flow(Protocol):
    """What is being sent to a client."""

    def pause(self) -> None:
        """The client can't take more."""

    def resume(self) -> None:
        """The client can take more."""


class ClientProtocol(RequestHandler):
    """One client connection. `exchange` is the answer, or the WebSocket, that is streaming to it."""

    __slots__ = ("_began", "_body", "_head_size", "_mark", "_since", "evicted", "exchange", "full", "tunnel")

    def __init__(self, manager: FrontServer, **options: Any) -> None:
        super().__init__(manager, **options)
        self.exchange: Flow | None = None
        self.full = False
        """The client takes less than it is sent: an answer that starts now starts paused."""
        self.tunnel: asyncio.Protocol | None = None
        """Who gets the bytes of a connection that was upgraded."""
        self.evicted = False
        """It is being closed, and no longer counted."""
        self._head_size = 0
        self._body: StreamReader | None = None
        """What a handler is waiting for, since `_began`."""
        self._began = 0.0
        # What the sweep last saw of the body or of the bytes to send, and since when it has been so.
        self._mark = -1
        self._since = 0.0

    # --- what comes in --------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.tunnel is not None:
            self.tunnel.data_received(data)  # aiohttp would drop it as soon as the server is going to stop
            return
        RequestHandler.data_received(self, data)
        if self._waiter is not None:
            self._between_requests(len(data))
        elif self._body is not None and self._messages and not self._body.is_eof():
            # Nothing can follow a body that isn't complete but the parser's complaint, which the body doesn't hear of.
            self._give_up_body(BodyError("it is not well-formed"))

    def _between_requests(self, size: int) -> None:
        """A head arrives. The parser bounds its lines and their number; this bounds what it may keep of them all."""
        if self._messages:
            self._head_size = 0
            return
        self._head_size += size
        if self._head_size > caps.MAX_HEAD and self.transport is not None:
            self.transport.write(_plain_answer(b"431 Request Header Fields Too Large", caps.HEAD_TOO_LARGE))
            self.force_close()

    def expect_body(self, content: StreamReader | None) -> None:
        """A handler waits for this body until it says None. Where it waits in vain, `content` raises BodyError."""
        self._body, self._mark = content, -1
        if content is not None:
            self._began = self._since = self._loop.time()

    def _give_up_body(self, error: BodyError) -> None:
        content, self._body = self._body, None
        assert content is not None
        self.close()  # nobody knows where another request would begin
        content.set_exception(error)
        content.feed_eof()

    # --- what goes out --------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        self.full = True
        if self.exchange is not None:
            self.exchange.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.full = False
        self._mark = -1
        if self.exchange is not None:
            self.exchange.resume()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what the parser refused.

        The library's own quotes the line it stumbled over, in the answer and with a traceback in the log; that line
        may hold a token.
        """
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is under way")
        what, described, _ = (message or "").partition(":\n\n")
        what = what[:100] if described else type(exc).__name__
        log.info("a request from %s is refused: %s", self.peer, what)
        if isinstance(exc, LineTooLong) or (message or "").startswith("Too many headers"):
            status, detail = 431, caps.HEAD_TOO_LARGE
        else:
            detail = f"{_NO_HTTP}: {what}."
        answer = web.Response(status=status, body=_problem(detail), content_type="application/json")
        answer.force_close()
        return answer

    @property
    def peer(self) -> str:
        """The client's address, for the log."""
        peer = self.peername
        return str(peer[0]) if isinstance(peer, tuple) else "a local socket"

    # --- deadlines ------------------------------------------------------------------------------------------------

    @property
    def idle_since(self) -> float | None:
        """Since when there has been no whole request on this connection; None while one is served."""
        waiting = self._waiter is not None and not self._waiter.done()
        if self._messages or not (waiting or self._request_count == 0):
            return None
        return self._next_keepalive_close_time - caps.KEEP_ALIVE_SECONDS

    @property
    def at_rest(self) -> bool:
        """It has served a request, and nothing of another one has come."""
        return self.idle_since is not None and self._request_count > 0 and not self._head_size

    def sweep(self, transport: asyncio.Transport, now: float) -> None:
        """Let go of a client that sends nothing of its request, or takes nothing of its answer, for too long."""
        if self.full or transport.is_closing():
            # Nobody writes to a transport that is full or closing: only the client changes what is left to send.
            left = _left_to_send(transport)
            if left != self._mark:
                self._mark, self._since = left, now
            elif left and now - self._since >= (caps.LINGER_SECONDS if transport.is_closing() else caps.SEND_SECONDS):
                log.info("a client at %s takes nothing of its answer and is let go", self.peer)
                transport.abort()
        elif self._body is not None:
            self._sweep_body(self._body, now)

    def _sweep_body(self, body: StreamReader, now: float) -> None:
        received, waited = body.total_bytes, now - self._began
        if received != self._mark:
            self._mark, self._since = received, now
        if now - self._since >= caps.BODY_SECONDS:
            self._give_up_body(SlowBody(f"nothing came for {caps.BODY_SECONDS:g} s"))
        elif received < caps.BODY_RATE * (waited - caps.BODY_GRACE):
            self._give_up_body(SlowBody(f"less than {caps.BODY_RATE} bytes a second came"))


class FrontServer(web.Server):
    """aiohttp's low-level server: no router and no middleware on the hot path.

    A handler is cancelled as soon as its client leaves, which stops the upstream's work. With `limit` connections
    open, the ones that have been idle for longest make room for new ones; where none is idle, a new one gets 503.
    """

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        super().__init__(handler, handler_cancellation=True, access_log=None)
        self.limit = caps.connection_limit()
        self.open = 0
        """Connections, without those that are being evicted."""
        self._full = False
        self._sweeper: asyncio.TimerHandle | None = None
        self._options: dict[str, Any] = {
            "access_log": None,
            "auto_decompress": False,
            "keepalive_timeout": caps.KEEP_ALIVE_SECONDS,
            "lingering_time": 5.0,
            "max_field_size": caps.MAX_FIELD,
            "max_headers": caps.MAX_FIELDS,
            "max_line_size": caps.MAX_FIELD,
            "read_bufsize": READ_BUFFER,
        }

    def __call__(self) -> ClientProtocol:
        return ClientProtocol(self, loop=asyncio.get_running_loop(), **self._options)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self.open += 1
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(caps.SWEEP_SECONDS, self._sweep)
        if self.open > self.limit:
            assert isinstance(handler, ClientProtocol)
            self._make_room(handler, transport)

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        if isinstance(handler, ClientProtocol) and not handler.evicted:
            self.open -= 1

    def _make_room(self, newcomer: ClientProtocol, transport: asyncio.Transport) -> None:
        if not self._full:
            self._full = True
            log.warning(
                "%d client connections are open, and file descriptors don't last for more: idle ones are closed, and "
                "new ones refused while none is idle (raise LimitNOFILE= or `ulimit -n`)",
                self.open - 1,
            )
        idle = [
            (since, id(protocol), protocol)
            for protocol in self._connections
            if isinstance(protocol, ClientProtocol)
            and not protocol.evicted
            and protocol is not newcomer
            and (since := protocol.idle_since) is not None
        ]
        # Several at a time: looking through them all costs a millisecond, which a flood must not cause each time.
        for _, _, protocol in heapq.nsmallest(1 + self.limit // 16, idle):
            self._evict(protocol)
        if not idle:
            transport.write(_plain_answer(b"503 Service Unavailable", _BUSY, b"retry-after: 1\r\n"))
            self._evict(newcomer)

    def _evict(self, protocol: ClientProtocol) -> None:
        protocol.evicted = True
        self.open -= 1
        protocol.force_close()

    def _sweep(self) -> None:
        now = self._loop.time()
        for protocol, transport in list(self._connections.items()):
            if isinstance(protocol, ClientProtocol):
                protocol.sweep(transport, now)
        if self.open <= self.limit // 2:
            self._full = False
        self._sweeper = self._loop.call_later(caps.SWEEP_SECONDS, self._sweep) if self._connections else None

    @property
    def awaits_requests(self) -> bool:
        """A connection has its first request on the way, or a part of one has come."""
        protocols = (protocol for protocol in self._connections if isinstance(protocol, ClientProtocol))
        return any(protocol.idle_since is not None and not protocol.at_rest for protocol in protocols)

    def pre_shutdown(self) -> None:
        """Close what is idle between two requests. What is under way or arriving goes on: the gateway drains it.

        aiohttp's own would drop the rest of a request's body, and a first request that is still on its way.
        """
        for protocol in list(self._connections):
            if isinstance(protocol, ClientProtocol) and protocol.at_rest:
                protocol.force_close()

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Close every connection; handlers get so many seconds to end."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        await super().shutdown(timeout)


def _left_to_send(transport: asyncio.Transport) -> int:
    """Bytes that a client has not taken: ours, and the kernel's, which may hold megabytes and take from us in gulps."""
    left = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    if left and sock is not None:
        try:
            left += int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        except (OSError, ValueError):
            pass  # not every system can tell; then ours have to do
    return left


def _problem(detail: str) -> bytes:
    return json.dumps({"error": {"type": "bad_request", "message": detail}}).encode()


def _plain_answer(status: bytes, detail: str, fields: bytes = b"") -> bytes:
    """An answer where no request was read."""
    body = _problem(detail)
    return b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n%b" % (
        status,
        len(body),
        fields,
        body,
    )
