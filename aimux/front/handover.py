"""One request's way to another server in this process (aiohttp's): the connection as that server sees it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aimux.front.answer import SENT, Sent
from aimux.front.transports import TransportBefore
from aimux.http.framing import LAST_CHUNK, chunk
from aimux.http.turn import PAUSE

if TYPE_CHECKING:
    from aimux.front.request import ReceivedRequest
    from aimux.plugin.errors import GatewayError


async def hand_over(request: ReceivedRequest, protocol: asyncio.Protocol) -> Sent:
    """Have `protocol` serve this request, the last one on its connection. This has to be the first thing in the
    request's turn.

    It gets what was strictly parsed and nothing else: this one request, its body in a framing of ours, and what comes
    behind only once it has switched protocols (101). The front's bounds and deadlines hold on. Raises BodyError where
    the body is broken or too slow and no answer has begun.
    """
    if request.body_error is not None:
        raise request.body_error
    request.keep_alive = False
    return await Handover(request, protocol).serve()


class Handover(TransportBefore):
    """The transport that the other server's protocol has."""

    def __init__(self, request: ReceivedRequest, protocol: asyncio.Protocol) -> None:
        super().__init__(request.connection.transport)
        self._request = request
        self._connection = request.front
        self._protocol = protocol
        self._chunked = request.head.length is None
        self._answering = False
        self._switched = False
        self._closed = False

    async def serve(self) -> Sent:
        request, connection, protocol = self._request, self._connection, self._protocol
        connection.flow = self
        protocol.connection_made(self)
        try:
            if connection.full:
                protocol.pause_writing()
            protocol.data_received(_head(request))
            self.resume_reading()
            while request.reader is not None and not self._closed:
                if request.body_error is not None:
                    if self._answering:
                        return SENT
                    raise request.body_error
                self._pass_on(request.reader.take())
                await PAUSE
            request.limit = None
            if not self._closed:
                raw, request.raw = request.raw, b""
                self._pass_on(raw)
                if self._chunked:
                    protocol.data_received(LAST_CHUNK)
            while not self._closed:
                await PAUSE
        finally:
            self._closed = True
            connection.flow = None
            if not (self._switched and connection.lost):
                self._protocol.connection_lost(None)
        return SENT

    def _pass_on(self, payload: bytes) -> None:
        if payload:
            self._protocol.data_received(chunk(payload) if self._chunked else payload)

    # --- what the client can take: see Flow -----------------------------------------------------------------------

    def pause(self) -> None:
        self._protocol.pause_writing()

    def resume(self) -> None:
        self._protocol.resume_writing()

    def stop(self, error: GatewayError) -> None:
        """An error can't be reported within whatever the protocol is sending."""
        self.abort()

    # --- the transport --------------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.is_closing() or not data:
            return
        self.below.write(data)
        if not self._answering:
            status = bytes(data[9:12])
            self._answering = status != b"100"
            if status == b"101":
                self._switched = True
                self._connection.upgrade(self._protocol)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            # Not within the protocol's own call: it is told of its connection's end when the turn goes on.
            asyncio.get_running_loop().call_soon(self._request.turn.resume)

    def is_closing(self) -> bool:
        return self._closed or self.below.is_closing()

    def pause_reading(self) -> None:
        self._request.limit = None  # what isn't read can't be late
        self._connection.read(False)

    def resume_reading(self) -> None:
        request = self._request
        if request.reader is not None:
            request.want(request.reader, 0, continues=False)  # with 0, each packet resumes the turn
        else:
            self._connection.read(True)

    def can_write_eof(self) -> bool:
        return False

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol
        if self._switched:
            self._connection.upgrade(protocol)


def _head(request: ReceivedRequest) -> bytes:
    head = request.head
    line = f"{head.method} {head.target} HTTP/1.{1 if head.http11 else 0}"
    return b"\r\n".join([line.encode("latin-1"), *head.lines, b"", b""])
