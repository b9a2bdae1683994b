"""One client's connection: requests are read from it one after the other, each is handed over, and its answer sent."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import socket
import sys
import termios
from typing import TYPE_CHECKING

from aimux.front import bounds
from aimux.front.answer import Answer, plain_answer
from aimux.front.request import ReceivedRequest
from aimux.http.request import BodyReader, LastHead, RequestError, parse_request_head
from aimux.http.rounds import soon

if TYPE_CHECKING:
    from aimux.front.answer import Sent
    from aimux.front.request import Flow
    from aimux.front.server import FrontServer

log = logging.getLogger("aimux.gateway")

READ_AHEAD = 64 * 1024
"""Bytes that are kept of a body nobody has asked for, or of requests behind the one that is served."""

_REFUSED = "This HTTP request can't be accepted"


class ClientConnection(asyncio.Protocol):
    """One client's connection. `flow` is the answer, or the WebSocket, that is streaming to it."""

    __slots__ = (
        "_buffer",
        "_closing",
        "_heads",
        "_mark",
        "_reading",
        "_request",
        "_scanned",
        "_server",
        "_since",
        "_tunnel",
        "admission",
        "evicted",
        "flow",
        "full",
        "idle_since",
        "lost",
        "own",
        "peer",
        "served",
        "transport",
    )

    def __init__(self, server: FrontServer) -> None:
        self._server = server
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anything can use it
        self.own = ""
        self.peer = ""
        """The client's address, and `own` the one that it came to; "" over a unix socket."""
        """The client's address; "" for a unix socket's."""
        self.flow: Flow | None = None
        self.full = False
        """The client takes less than it is sent: an answer that starts now starts paused."""
        self.lost = False
        """The client has gone."""
        self.evicted = False
        """It is being closed, and no longer counted."""
        self.admission: object = None
        """What whoever serves has found out from the last head alone, for the next request with the same one."""
        self.served = 0
        self.idle_since = 0.0
        """Since when there has been no whole head on this connection, by the loop's clock."""
        self._request: ReceivedRequest | None = None
        self._tunnel: asyncio.Protocol | None = None
        """Who gets the bytes of a connection that was upgraded."""
        self._buffer = b""
        """What came and is not read yet: a part of a head, or what follows the request that is being served."""
        self._scanned = 0
        self._heads = LastHead()
        self._closing = False
        """No further request is read: what still comes is dropped until the client has hung up."""
        self._reading = True
        # What the sweep last saw of the body or of the bytes to send, and since when it has been so.
        self._mark = -1
        self._since = 0.0

    # --- what comes in --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's is none by its class
        peer = transport.get_extra_info("peername")
        sock = transport.get_extra_info("socket")
        if isinstance(peer, tuple):
            self.peer = str(peer[0])
            self.own = str(transport.get_extra_info("sockname")[0])
            if sock is not None:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.idle_since = self._server.now()
        self._server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._server.closed(self)
        if self._tunnel is not None:
            self._tunnel.connection_lost(None)
        if self._request is not None:
            self._request.turn.cancel()

    def eof_received(self) -> bool:
        return False

    def data_received(self, data: bytes) -> None:
        request = self._request
        if request is None:
            if self._closing:
                self._unwanted(data)
            else:
                self._read_head(self._buffer + data if self._buffer else data)
        elif self._tunnel is not None:
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
                self._check_part(data)
                self._buffer, self._scanned = data, len(data)
                return
            self._buffer, self._scanned = b"", 0
            block = data[:end]
            head = self._heads.known(block)
            if head is None:
                _check_sizes(block)
                head = parse_request_head(block)
                self._heads.keep(block, head)
                self.admission = None
        except RequestError as error:
            self._refuse(error)
            return
        begin, length = end + 4, head.length
        request = self._request = ReceivedRequest(self, head)
        if length is not None and len(data) - begin >= length:
            request.raw, self._buffer = data[begin : begin + length], data[begin + length :]
        else:
            request.reader = BodyReader(length)
            if len(data) > begin:
                self._read_body(request, request.reader, data[begin:])
        request.turn.start(self._server.handler(request))

    def _check_part(self, data: bytes) -> None:
        """Half a head: what can't become one any more is told so at once. Raises RequestError."""
        if len(data) > bounds.MAX_HEAD:
            raise RequestError(bounds.HEAD_TOO_LARGE, 431)
        # No line feed may stand alone; and a request begins with its method (a TLS handshake does not).
        seen = self._scanned
        alone = data.count(b"\n", seen) != data.count(b"\r\n", max(0, seen - 1))
        if alone or not (b"A" <= data[:1] <= b"Z" or data in {b"", b"\r"}):
            raise RequestError("it does not begin like one")

    def _refuse(self, error: RequestError) -> None:
        """The answer to what is no request. It quotes nothing: a malformed line may hold a token."""
        log.info("a request from %s is refused: %s", self.peer or "a local socket", error)
        self.transport.write(plain_answer(error.status, f"{_REFUSED}: {error}."))
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
            if request.answered:
                self._next()
            else:
                request.turn.resume()
        elif request.answered:
            reader.drop()
            self._unwanted(data)
        elif request.limit is None:
            if reader.size > READ_AHEAD:
                self.read(False)
        elif reader.size > request.limit:
            request.turn.resume()

    def _unwanted(self, data: bytes) -> None:
        """Somebody sends what nobody reads. At the speed of a wire that alone would keep the loop busy."""
        if len(data) >= READ_AHEAD:
            self.read(False)
            self._server.loop.call_later(bounds.UNWANTED_SECONDS, self.read, True)

    def _read_unread(self) -> None:
        """Go on with the chunks of a packet that had too many of them."""
        request = self._request
        if request is None or request.body_error is not None or self.lost:
            return
        reader = request.reader
        if reader is not None and reader.unread:
            self._read_body(request, reader, b"")
            if request is self._request and not reader.unread:
                self.read(True)

    def body_wanted(self, reader: BodyReader, *, continues: bool) -> float:
        """Somebody waits for the body; the client may wait to be told. Returns the time on the loop's clock."""
        self.read(not reader.unread)
        if continues:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._mark = -1
        self._since = now = self._server.now()
        return now

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
        reader = request.reader
        if isinstance(answer, Answer) and not self.lost:
            # A client that waits to hear whether to send its body may do so or not now: the next byte can be anything.
            # And where chunks end is known only to who reads them, which is work that a stranger could cause.
            unclear = request.body_error is not None or (
                reader is not None and (reader.chunked or (request.head.expects and not reader.received))
            )
            request.keep_alive = request.keep_alive and not answer.close and not unclear
            self.transport.write(answer.encode(request.head, keep_alive=request.keep_alive))
        ended = reader is None and not request.keep_alive and not self._buffer
        if answer is None or self.lost or self._closing or ended:
            self._request = None
            self.close()
        elif not request.keep_alive:
            self._linger()
        elif reader is None:
            self._next()
        else:  # what is left of its body is read and dropped, until the sweep has seen enough
            request.answered = True
            reader.drop()
            self._since = self._server.now()
            self.read(True)

    def _next(self) -> None:
        """Be ready for another request, which may have come already; not while the client takes no answers."""
        self._request = None
        self.idle_since = self._server.now()
        self.read(not self.full and len(self._buffer) <= READ_AHEAD)
        if self._buffer and not self.full:
            # In a round of its own: a hundred pipelined requests must not nest, nor keep all others waiting.
            self._server.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if self._request is None and self._buffer and not (self._closing or self.lost or self.full):
            data, self._buffer, self._scanned = self._buffer, b"", 0
            self._read_head(data)

    def _linger(self) -> None:
        """Close, but not before the client has read why: bytes that nobody reads would make the kernel reset it."""
        self._closing, self._buffer, self._request = True, b"", None
        self.read(True)
        self._mark, self._since = -1, self._server.now()
        self.transport.write_eof()

    def upgrade(self, tunnel: asyncio.Protocol) -> None:
        """Everything that comes from here on, and what came behind the handshake, is `tunnel`'s."""
        self._tunnel = tunnel
        if self._buffer:
            data, self._buffer = self._buffer, b""
            self.read(True)
            tunnel.data_received(data)

    def close(self) -> None:
        """Read nothing more, and close when all that was written is sent."""
        self._closing = True
        self.transport.close()

    def end(self) -> None:
        """Stop what is being served, and close."""
        self._closing = True
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
        return self._request is None and not self._closing

    @property
    def spent(self) -> bool:
        """It was refused or is over, and the client has all that it will get: nothing of it is waited for but its end.

        One whose client has just gone is among them: it counts as open until the loop has told so.
        """
        over = self._closing or self.transport.is_closing() or (self._request is not None and self._request.answered)
        return over and not self.transport.get_write_buffer_size()

    @property
    def at_rest(self) -> bool:
        """It has served a request, and nothing of another one has come."""
        return self.idle and self.served > 0 and not self._buffer

    def sweep(self, now: float) -> None:
        """Let go of a client that sends nothing of its request, or takes nothing of its answer, for too long."""
        transport, request = self.transport, self._request
        if self.full or transport.is_closing():
            # Nobody writes to a transport that is full or closing: only the client changes what is left to send.
            left = _left_to_send(transport)
            if left != self._mark:
                self._mark, self._since = left, now
            elif left and now - self._since >= (
                bounds.LINGER_SECONDS if transport.is_closing() else bounds.SEND_SECONDS
            ):
                log.info("a client at %s does not read its answer and is disconnected", self.peer or "a local socket")
                transport.abort()
        elif self._closing:
            if now - self._since >= bounds.LINGER_SECONDS:
                transport.close()
        elif request is None:
            if now - self.idle_since >= bounds.KEEP_ALIVE_SECONDS:
                self.close()
        elif request.answered:
            if now - self._since >= bounds.LINGER_SECONDS:
                self._linger()
        elif request.reader is not None and request.limit is not None:
            self._sweep_body(request, request.reader.received, now)

    def _sweep_body(self, request: ReceivedRequest, received: int, now: float) -> None:
        waited = now - request.asked_at
        if received != self._mark:
            self._mark, self._since = received, now
        if now - self._since >= bounds.BODY_SECONDS:
            request.fail(408, f"The request's body did not arrive: nothing came for {bounds.BODY_SECONDS:g} s.")
        elif received < bounds.BODY_RATE * (waited - bounds.BODY_GRACE):
            request.fail(408, f"The request's body did not arrive: less than {bounds.BODY_RATE} bytes a second came.")


def _check_sizes(block: bytes) -> None:
    """Raises RequestError (431)."""
    if (
        len(block) > bounds.MAX_HEAD
        or block.count(b"\r\n") > bounds.MAX_FIELDS
        or (len(block) > bounds.MAX_FIELD and max(map(len, block.split(b"\r\n"))) > bounds.MAX_FIELD)
    ):
        raise RequestError(bounds.HEAD_TOO_LARGE, 431)


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
