"""A request that aiohttp has read, relayed by the gateway that serves the lane; its answer is a response of aiohttp's.

Slower than the lane, with the same result: what the gateway writes for the wire is parsed again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web
from multidict import CIMultiDict

from aimux.control.middlewares.bodies import BodyTimeout, collect, in_time
from aimux.control.state import RequestKey, ends
from aimux.front.answer import Answer, Sent, not_accepted
from aimux.front.request import BodyError, Request, too_large
from aimux.front.transports import TransportBefore
from aimux.gateway.answers import error_answer
from aimux.http.framing import Framer, framer_for
from aimux.http.head_reader import HeadReader
from aimux.http.request import RequestError, RequestHead, parse_request_head
from aimux.plugin.codings import DecodeError, decoder
from aimux.plugin.errors import ErrorKind, GatewayError

if TYPE_CHECKING:
    from aimux.front.request import Flow
    from aimux.gateway import Gateway
    from aimux.http.head import ResponseHead

FULL = 64 * 1024
"""Bytes of an answer that wait for aiohttp to take them; above, the upstream isn't read."""
LOOK_SECONDS = 1.0
"""Only with `handler_cancellation` does aiohttp tell a handler that its client has left: otherwise we check this
often."""
_UNPACKED = frozenset({"gzip", "deflate", "br", "zstd"})
"""Codings of a body that aiohttp undoes unless told not to: then the request's head is no longer true."""
_OF_AIOHTTP = ("content-type", "date", "server")
"""Headers that aiohttp adds to an answer that lacks them …"""
_UNNAMED = RequestKey("unnamed", set)
"""… and those of them that this request's answer should not have."""


async def relay(gateway: Gateway, received: web.Request, target: str) -> web.StreamResponse:
    """Serve a request below a mount. `target` is as the client sent it, less what the application is mounted at.

    Raises CancelledError if the connection has to end: after an answer that broke off, and after a WebSocket.
    """
    try:
        head = _head(received, target)
    except RequestError as error:
        refused = GatewayError(ErrorKind.BAD_REQUEST, not_accepted(error), status=error.status)
        return _response(received, error_answer(refused, None, ""))
    connection = _Connection(received)
    request = _Request(connection, head, received)
    request.turn.start(gateway.handle(request))
    try:
        return await connection.respond()
    except asyncio.CancelledError:
        connection.lost = received.transport is None or received.transport.is_closing()
        raise
    finally:
        request.turn.cancel()


def _head(received: web.Request, target: str) -> RequestHead:
    """Parse it again, as strictly as the front does. Raises RequestError."""
    major, minor = received.version
    lines = [f"{received.method} {target} HTTP/{major}.{minor}".encode("utf-8", "surrogateescape")]
    lines += [b"%b: %b" % field for field in received.raw_headers]
    head = parse_request_head(b"\r\n".join(lines))
    head.http11 = True  # aiohttp does the framing for this client
    return head


async def tidy(request: web.Request, response: web.StreamResponse) -> None:
    """For `on_response_prepare`: remove what aiohttp has added and the lane would not."""
    for name in request.get(_UNNAMED, ()):
        response.headers.popall(name, None)


def _response(received: web.Request, answer: Answer) -> web.Response:
    received[_UNNAMED] = {"server"}
    response = web.Response(status=answer.status, headers=answer.headers, body=answer.body)
    if answer.close:
        response.force_close()
    return response


class _Request(Request):
    __slots__ = ("_received",)

    def __init__(self, connection: _Connection, head: RequestHead, received: web.Request) -> None:
        super().__init__(connection, head)
        self._received = received

    def whole(self, limit: int) -> bytes | None:
        if (self.head.length or 0) > limit:
            raise too_large(limit)
        return None if self._received.can_read_body else b""

    async def read(self, limit: int) -> bytes:
        return await self.turn.apart(self._read(limit))

    async def _read(self, limit: int) -> bytes:
        try:
            async with in_time(self._received):
                raw = await collect(self._received, limit)
        except BodyTimeout:
            raise BodyError(ErrorKind.BAD_REQUEST, "The request's body did not arrive in time.", status=408) from None
        except (web.RequestPayloadError, ConnectionError):
            raise BodyError(ErrorKind.BAD_REQUEST, "The request's body is broken.", retry=False) from None
        if raw is None:
            raise too_large(limit)
        coding = self.head.headers.get("content-encoding", "")
        # The server's arguments are those of the outermost application.
        if raw and coding.strip().lower() in _UNPACKED and len(self._received.match_info.apps) > 1:
            try:
                decoder(coding).decode(raw[:64])
            except DecodeError:
                raise GatewayError(
                    ErrorKind.BAD_REQUEST,
                    f"The body is not {coding}; or aimux runs in a server that has unpacked it: run that one with "
                    "`auto_decompress=False`.",
                    retry=False,
                ) from None
        return raw


class _Connection:
    """The client's connection, as the gateway knows it."""

    def __init__(self, received: web.Request) -> None:
        if received.transport is None:
            raise asyncio.CancelledError
        self.peer, self.reached = ends(received)
        self.flow: Flow | None = None
        self.full = False
        self.lost = False
        self.admission: object = None
        self.tunnel: asyncio.Protocol | None = None
        self.wire = _Wire(received, received.transport, self)
        self.transport: asyncio.Transport = self.wire
        self._received = received
        self._answer: Answer | Sent | None = None
        self._ended = False
        self._changed = asyncio.Event()

    # --- for the gateway ------------------------------------------------------------------------------------------

    def turn_ended(self, answer: Answer | Sent | None) -> None:
        self._answer, self._ended = answer, True
        self._changed.set()

    def upgrade(self, tunnel: asyncio.Protocol) -> None:
        self.tunnel = tunnel

    def written(self) -> None:
        """There is something in the wire."""
        self._changed.set()
        if self.wire.size > FULL:
            self.pause()

    def pause(self) -> None:
        if not self.full:
            self.full = True
            if self.flow is not None:
                self.flow.pause()

    def resume(self) -> None:
        if self.full:
            self.full = False
            if self.flow is not None:
                self.flow.resume()

    # --- for aiohttp ----------------------------------------------------------------------------------------------

    async def respond(self) -> web.StreamResponse:
        """Raises CancelledError if the connection has to end."""
        wire = self.wire
        while wire.head is None and not self._ended:
            await self._change()
        if wire.head is None:
            if isinstance(self._answer, Answer):
                return _response(self._received, self._answer)
            raise asyncio.CancelledError
        response = await self._begin(wire.head)
        try:
            while not self._ended or wire.size:
                if wire.size:
                    await response.write(wire.take())
                    self.resume()
                else:
                    await self._change()
            if wire.whole:
                await response.write_eof()
                return response
        except ConnectionError:
            pass
        raise asyncio.CancelledError

    async def _begin(self, head: ResponseHead) -> web.StreamResponse:
        fields = [line.partition(b":") for line in head.lines]
        headers = CIMultiDict(
            (name.decode("latin-1"), value.strip().decode("utf-8", "replace"))
            for name, _, value in fields
            if name.lower() not in {b"connection", b"transfer-encoding"}
        )
        reason = head.reason.decode("latin-1")
        response = web.StreamResponse(status=head.status, reason=reason, headers=headers)
        self._received[_UNNAMED] = {name for name in _OF_AIOHTTP if name not in headers}
        await response.prepare(self._received)
        return response

    async def _change(self) -> None:
        """Wait until there is something new. Raises CancelledError if the client has left."""
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._changed.wait()
        except TimeoutError:
            if self._received.transport is None or self._received.transport.is_closing():
                raise asyncio.CancelledError from None
        self._changed.clear()


class _Wire(TransportBefore):
    """Takes what the gateway writes: an answer is parsed, a WebSocket gets the connection itself."""

    def __init__(self, received: web.Request, below: asyncio.Transport, connection: _Connection) -> None:
        super().__init__(below)
        self.head: ResponseHead | None = None
        self.size = 0
        self._received = received
        self._connection = connection
        self._reader = HeadReader()
        self._framer: Framer | None = None
        self._pieces: list[bytes] = []
        self._switched = False

    @property
    def whole(self) -> bool:
        """All of the answer was written."""
        return self._framer is not None and self._framer.done

    def take(self) -> bytes:
        """The part of the answer's body that was written."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        self.size = 0
        return data

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._switched:
            self.below.write(data)
            return
        piece = bytes(data)
        if self._framer is None:
            found = self._reader.feed(piece)
            assert found is not None  # a head is written at once
            head, rest = found
            if head.status == 101:
                self._switched = True
                self.below.set_protocol(_Switched(self._connection, self._received.protocol))
                self.below.write(piece)
                return
            self._framer = framer_for(self._received.method, head.status, chunked=head.chunked, length=head.length)
            self.head, piece = head, rest
        if piece:
            _, payload = self._framer.feed(piece)
            self._pieces += payload
            self.size += sum(map(len, payload))
        self._connection.written()

    def get_write_buffer_size(self) -> int:
        return self.below.get_write_buffer_size() if self._switched else self.size


class _Switched(asyncio.Protocol):
    """Gets a connection's bytes once it is a WebSocket's. `server` is told of its end."""

    def __init__(self, connection: _Connection, server: asyncio.Protocol) -> None:
        self._connection = connection
        self._server = server

    def data_received(self, data: bytes) -> None:
        assert self._connection.tunnel is not None
        self._connection.tunnel.data_received(data)

    def pause_writing(self) -> None:
        self._connection.pause()

    def resume_writing(self) -> None:
        self._connection.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.lost = True
        if self._connection.tunnel is not None:
            self._connection.tunnel.connection_lost(None)
        self._server.connection_lost(exc)
