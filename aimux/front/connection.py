"""One client's connection: requests are read from it one after the other, each is handed over, and its answer sent."""

from __future__ import annotations

import asyncio  # noqa: TC003 - compiled, a protocol's annotations are looked up
import logging
import socket
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol

from aimux.front import bounds
from aimux.front.answer import Answer, not_accepted, plain_answer
from aimux.front.request import ReceivedRequest
from aimux.front.transports import left_to_send
from aimux.http.request import BodyReader, LastHead, RequestError, parse_request_head
from aimux.http.rounds import soon

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from aimux.front.answer import Sent
    from aimux.front.request import Flow, Request

log = logging.getLogger("aimux.gateway")

READ_AHEAD: Final = 64 * 1024
"""Bytes kept of a body that nobody has asked for, or of requests behind the one that is being served."""


class Server(Protocol):
    """Who keeps the connections."""

    loop: asyncio.AbstractEventLoop
    now: Callable[[], float]
    handler: Callable[[Request], Coroutine[None, None, Answer | Sent]]

    def opened(self, connection: ClientConnection) -> None:
        """There is another one."""

    def closed(self, connection: ClientConnection) -> None:
        """It is gone."""


class State(Enum):
    """Of a client's connection."""

    IDLE = "there is no whole head of a request"
    SERVING = "a request is served; its body may still come"
    UPGRADED = "a request is served that has switched protocols: what comes is its tunnel's"
    DRAINING = "the answer is sent, and the rest of the request's body is read and dropped"
    LINGERING = "no further request is read, and what comes is dropped until the client has hung up"
    CLOSING = "it is closed as soon as what was written is sent"
    LOST = "the client has gone"


IDLE: Final = State.IDLE
SERVING: Final = State.SERVING
UPGRADED: Final = State.UPGRADED
DRAINING: Final = State.DRAINING
LINGERING: Final = State.LINGERING
CLOSING: Final = State.CLOSING
LOST: Final = State.LOST
"""To look one up in its class takes 60 ns."""


class ClientConnection:
    """One client's connection. `flow` is the answer, or the WebSocket, that is streaming to it."""

    __slots__ = (
        "_buffer",
        "_heads",
        "_mark",
        "_reading",
        "_request",
        "_scanned",
        "_server",
        "_since",
        "_state",
        "_tunnel",
        "admission",
        "flow",
        "full",
        "idle_since",
        "peer",
        "reached",
        "served",
        "transport",
    )

    def __init__(self, server: Server) -> None:
        # As long as it lasts.
        self._server = server
        self._state = IDLE
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anything can use it
        self.reached = ""
        self.peer = ""
        """The client's address, and `reached` the one of this machine's that it came to; "" over a unix socket."""
        self.served = 0
        self.full = False
        """The client reads more slowly than it is sent data: an answer that starts now starts paused."""
        self._reading = True
        self._buffer = b""
        """Received and not parsed yet: a part of a head, or what follows the request that is being served."""
        self._scanned = 0

        # From one request to the next with the same head.
        self._heads = LastHead()
        self.admission: object = None
        """What the server derived from the last head alone."""

        # While a request is served.
        self._request: ReceivedRequest | None = None
        self.flow: Flow | None = None
        self._tunnel: asyncio.Protocol | None = None
        """Gets the bytes of a connection that was upgraded."""

        # Deadlines, by the loop's clock.
        self.idle_since = 0.0
        """Since when there has been no whole head."""
        # How much the sweep last saw left to send, and since when it has been so; or since when the rest is dropped.
        self._mark = -1
        self._since = 0.0

    # --- what comes in --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's is none by its class
        peer = transport.get_extra_info("peername")
        sock = transport.get_extra_info("socket")
        if isinstance(peer, tuple):
            self.peer = str(peer[0])
            self.reached = str(transport.get_extra_info("sockname")[0])
            if sock is not None:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.idle_since = self._server.now()
        self._server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._state = LOST
        self._server.closed(self)
        if self._tunnel is not None:
            self._tunnel.connection_lost(None)
        if self._request is not None:
            self._request.turn.cancel()

    def eof_received(self) -> bool:
        return False

    def data_received(self, data: bytes) -> None:
        state, request = self._state, self._request
        if state is IDLE:
            self._read_head(self._buffer + data if self._buffer else data)
        elif request is None:
            self._unwanted(data)
        elif state is UPGRADED:
            assert self._tunnel is not None
            self._tunnel.data_received(data)
        elif request.reader is None:
            self._buffer += data
            if len(self._buffer) > READ_AHEAD:
                self.read(False)
        elif request.body_error is None:
            self._read_body(request, request.reader, data)

    def _read_head(self, data: bytes) -> None:
        """`data` begins where a request does, or with the empty lines that some clients send before it."""
        if data.startswith(b"\r\n"):
            data = data[4 if data.startswith(b"\r\n\r\n") else 2 :]
            self._scanned = 0
        end = data.find(b"\r\n\r\n", max(0, self._scanned - 3))
        try:
            if end < 0:
                bounds.check_part(data, self._scanned)
                self._buffer, self._scanned = data, len(data)
                return
            self._buffer, self._scanned = b"", 0
            block = data[:end]
            head = self._heads.known(block)
            if head is None:
                bounds.check_head(block)
                head = parse_request_head(block)
                self._heads.keep(block, head)
                self.admission = None
        except RequestError as error:
            self._refuse(error)
            return
        begin, length = end + 4, head.length
        request = self._request = ReceivedRequest(self, head)
        self._state = SERVING
        if length is not None and len(data) - begin >= length:
            request.raw, self._buffer = data[begin : begin + length], data[begin + length :]
        else:
            request.reader = BodyReader(length)
            if len(data) > begin:
                self._read_body(request, request.reader, data[begin:])
        request.turn.start(self._server.handler(request))

    def _refuse(self, error: RequestError) -> None:
        """Answer bytes that are not a request."""
        log.info("a request from %s is refused: %s", self.peer or "a local socket", error)
        self.transport.write(plain_answer(error.status, not_accepted(error)))
        self._linger()

    def _read_body(self, request: ReceivedRequest, reader: BodyReader, data: bytes) -> None:
        try:
            reader.feed(data)
        except RequestError as error:
            request.fail(400, f"The request's body is broken: {error}.")
            return
        if reader.unread:
            self.read(False)
            soon(self._read_unread)
        if reader.complete:
            request.raw, request.reader, self._buffer = reader.take(), None, reader.rest
            if self._state is DRAINING:
                self._next()
            else:
                request.turn.resume()
        elif self._state is DRAINING:
            reader.drop()
            self._unwanted(data)
        elif request.limit is None:
            if reader.size > READ_AHEAD:
                self.read(False)
        elif reader.size > request.limit:
            request.turn.resume()

    def _unwanted(self, data: bytes) -> None:
        """The client sends what nobody reads. At wire speed that alone would keep the loop busy."""
        if len(data) >= READ_AHEAD:
            self.read(False)
            self._server.loop.call_later(bounds.UNWANTED_SECONDS, self.read, True)

    def _read_unread(self) -> None:
        """Go on with the chunks of a packet that had too many of them."""
        request = self._request
        if request is None or request.body_error is not None or self._state is LOST:
            return
        reader = request.reader
        if reader is not None and reader.unread:
            self._read_body(request, reader, b"")
            if request is self._request and not reader.unread:
                self.read(True)

    def body_wanted(self, reader: BodyReader, *, continues: bool) -> float:
        """Read on, as somebody awaits the body; tell the client if it waits for that. Returns the loop's time."""
        self.read(not reader.unread)
        if continues:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return self._server.now()

    def read(self, on: bool) -> None:
        """Take more of what the client sends, or not for now."""
        if self._reading != on and not self.transport.is_closing():
            self._reading = on
            if on:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    # --- what goes out --------------------------------------------------------------------------------------------

    def turn_ended(self, answer: Answer | Sent | None) -> None:
        """The request was served: with `answer`, which is to be sent, or one that was. None: it could not be."""
        request = self._request
        assert request is not None
        self._tunnel = self.flow = None
        self.served += 1
        reader, state = request.reader, self._state
        if isinstance(answer, Answer) and state is not LOST:
            # A client that waits to hear whether to send its body may do so or not now: the next byte can be anything.
            # And where chunks end is known only to who reads them, which is work that a stranger could cause.
            unclear = request.body_error is not None or (
                reader is not None and (reader.chunked or (request.head.expects and not reader.received))
            )
            request.keep_alive = request.keep_alive and not answer.close and not unclear
            self.transport.write(answer.encode(request.head, keep_alive=request.keep_alive))
        ended = reader is None and not request.keep_alive and not self._buffer
        if answer is None or ended or state is LOST or state is CLOSING:
            self._request = None
            self.close()
        elif not request.keep_alive:
            self._linger()
        elif reader is None:
            self._next()
        else:  # what is left of its body is read and dropped, until the sweep has seen enough
            self._state = DRAINING
            reader.drop()
            self._since = self._server.now()
            self.read(True)

    def _next(self) -> None:
        """Get ready for another request, which may have arrived already, unless the client takes no answers."""
        self._request, self._state = None, IDLE
        self.idle_since = self._server.now()
        if (reads := not self.full and len(self._buffer) <= READ_AHEAD) != self._reading:
            self.read(reads)
        if self._buffer and not self.full:
            # In a round of its own: a hundred pipelined requests must not nest, nor keep all others waiting.
            self._server.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if self._state is IDLE and self._buffer and not self.full:
            data, self._buffer, self._scanned = self._buffer, b"", 0
            self._read_head(data)

    def _linger(self) -> None:
        """Close, but not before the client has read why: bytes that nobody reads would make the kernel reset it."""
        self._state, self._buffer, self._request = LINGERING, b"", None
        self.read(True)
        self._mark, self._since = -1, self._server.now()
        self.transport.write_eof()

    def upgrade(self, tunnel: asyncio.Protocol) -> None:
        """Everything that comes from here on, and what came behind the handshake, is `tunnel`'s."""
        self._tunnel = tunnel
        if self._state is SERVING:
            self._state = UPGRADED
        if self._buffer:
            data, self._buffer = self._buffer, b""
            self.read(True)
            tunnel.data_received(data)

    def close(self) -> None:
        """Read nothing more, and close when all that was written is sent."""
        if self._state is not LOST:
            self._state = CLOSING
        self.transport.close()

    def end(self) -> None:
        """Stop what is being served, and close."""
        self._state = CLOSING
        if self._request is not None:
            self._request.turn.cancel()
        self.transport.close()

    def pause_writing(self) -> None:
        self.full = True
        if self.flow is not None:
            self.flow.pause()
        elif self.idle:
            self.read(False)

    def resume_writing(self) -> None:
        self.full = False
        self._mark = -1
        if self.flow is not None:
            self.flow.resume()
        elif self.idle:
            self._next()

    # --- deadlines ------------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """There is no whole head on it."""
        return self._state is IDLE

    @property
    def lost(self) -> bool:
        """The client has gone."""
        return self._state is LOST

    @property
    def spent(self) -> bool:
        """The request was refused or is over, and the client has all that it will get: only the connection's end is
        missing.

        This includes a connection whose client has just gone: it counts as open until the loop has reported that.
        """
        state = self._state
        waited_for = state is IDLE or state is SERVING or state is UPGRADED
        return (not waited_for or self.transport.is_closing()) and not self.transport.get_write_buffer_size()

    @property
    def at_rest(self) -> bool:
        """It has served a request, and no part of another one has arrived."""
        return self.idle and self.served > 0 and not self._buffer

    def sweep(self, now: float) -> None:
        """Let go of a client that sends nothing of its request, or takes nothing of its answer, for too long."""
        transport, state, request = self.transport, self._state, self._request
        if self.full or transport.is_closing():
            # Nobody writes to a transport that is full or closing: only the client changes what is left to send.
            left = left_to_send(transport)
            if left != self._mark:
                self._mark, self._since = left, now
            elif left and now - self._since >= (
                bounds.LINGER_SECONDS if transport.is_closing() else bounds.SEND_SECONDS
            ):
                log.info("a client at %s does not read its answer and is disconnected", self.peer or "a local socket")
                transport.abort()
        elif state is LINGERING:
            if now - self._since >= bounds.LINGER_SECONDS:
                transport.close()
        elif state is IDLE:
            if now - self.idle_since >= bounds.KEEP_ALIVE_SECONDS:
                self.close()
        elif state is DRAINING:
            if now - self._since >= bounds.LINGER_SECONDS:
                self._linger()
        elif request is not None:
            request.sweep(now)
