"""A pipe between two peers in memory: bytes in, frames out, and transports that can be full."""

from __future__ import annotations

import asyncio
import os
import struct
from typing import TYPE_CHECKING, Any

from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, Protocol
from websockets.server import ServerProtocol
from websockets.uri import WebSocketURI

from aimux.http.head import parse_response_head
from aimux.http.websocket import ClientSide, UpstreamSide
from aimux.relay.tunnel import Pipe
from aimux.relay.unfinished import Unfinished

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from aimux.http.head import ResponseHead

TEXT, BINARY, CONT, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
QUICKLY = {"level": 1}
"""How peers compress: 16 MiB take a third of a second, and not one."""


def raw(opcode: int, data: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """A frame as any peer might send it, right or wrong."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    flag = 0x80 if masked else 0
    if len(data) < 126:
        head = struct.pack("!BB", first, flag | len(data))
    elif len(data) < 1 << 16:
        head = struct.pack("!BBH", first, flag | 126, len(data))
    else:
        head = struct.pack("!BBQ", first, flag | 127, len(data))
    if not masked:
        return head + data
    mask = os.urandom(4)
    return (
        head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
        if len(data) < 1 << 16
        else (head + bytes(4) + data)
    )


def close(code: int | None, reason: bytes = b"") -> bytes:
    return b"" if code is None else struct.pack("!H", code) + reason


class Wire(asyncio.Transport):
    """What an end writes to. `room`: bytes it takes before it calls itself full; None for any number."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.taken = 0
        self.room: int | None = None
        self.reading = True
        self.half_closed = False
        self.closed = False
        self.aborted = False
        self.end: Any = None
        self._full = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        assert not self.half_closed
        self.sent += data
        if self.room is not None and not self._full and self.get_write_buffer_size() > self.room:
            self._full = True
            self.end.pause_writing()

    def take(self, size: int | None = None) -> bytes:
        """The peer reads."""
        piece = bytes(self.sent[self.taken :] if size is None else self.sent[self.taken : self.taken + size])
        self.taken += len(piece)
        if self._full and self.get_write_buffer_size() <= (self.room or 0):
            self._full = False
            self.end.resume_writing()
        return piece

    def get_write_buffer_size(self) -> int:
        return len(self.sent) - self.taken if self.room is not None else 0

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def write_eof(self) -> None:
        self.half_closed = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


class Peer:
    """The far side of an end: the library's codec, strict about what it gets."""

    def __init__(self, codec: Protocol, wire: Wire, end: Any) -> None:
        self.codec = codec
        self.wire = wire
        self.end = end
        self.frames: list[Frame] = []

    def send(self, data: bytes) -> None:
        self.end.data_received(data)

    def say(self, message: bytes, *, opcode: int = TEXT) -> None:
        """One message, with this peer's own extension and masking."""
        (self.codec.send_text if opcode == TEXT else self.codec.send_binary)(message)
        self.flush()

    def flush(self) -> None:
        self.send(b"".join(self.codec.data_to_send()))

    def got(self) -> list[tuple[int, bytes, bool]]:
        """Frames since the last call, each (opcode, data, fin)."""
        if data := self.wire.take():
            self.codec.receive_data(data)
        # The library calls a close frame between fragments a fault; the RFC allows it.
        assert self.codec.parser_exc is None or "incomplete" in str(self.codec.parser_exc), self.codec.parser_exc
        return [
            (int(event.opcode), bytes(event.data), event.fin)
            for event in self.codec.events_received()
            if isinstance(event, Frame)
        ]

    @property
    def closed_with(self) -> tuple[int, str] | None:
        """Code (1005: none) and reason of the close frame that arrived."""
        close = self.codec.close_rcvd
        return None if close is None else (int(close.code), close.reason)


class Quiet(Protocol):
    """Answers nothing by itself, so that a test sees what crossed."""

    def recv_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.PING:
            self.events.append(frame)
        else:
            super().recv_frame(frame)


class ClientPeer(Quiet, ClientProtocol):
    pass


class UpstreamPeer(Quiet, ServerProtocol):
    pass


class Socket:
    """A whole pipe with its two peers. `asked` and `answered` are the messages that its observers saw."""

    def __init__(
        self,
        *,
        client_deflate: bool = False,
        upstream_deflate: bool = False,
        offers: Sequence[ClientPerMessageDeflateFactory] = (),
        unfinished: Unfinished | None = None,
        judge: Callable[[bytes], bool] | None = None,
    ) -> None:
        """`offers`: what a client says of its compression, if not the library's usual."""
        self.asked: list[bytes] = []
        self.answered: list[bytes] = []
        client = ClientPeer(
            WebSocketURI(False, "gateway", 80, "/", ""),
            extensions=list(offers)
            or ([ClientPerMessageDeflateFactory(compress_settings=QUICKLY)] if client_deflate else None),
            state=OPEN,
            max_size=None,
        )
        codec = ClientSide()
        fields = codec.accept_handshake(client.connect().headers.raw_items())
        client.process_response(_response(fields))
        upstream = UpstreamPeer(
            extensions=[ServerPerMessageDeflateFactory(compress_settings=QUICKLY)] if upstream_deflate else None,
            state=OPEN,
            max_size=None,
        )
        far = UpstreamSide(deflate=bool(client_deflate or upstream_deflate or offers), subprotocols=[])
        far.check_handshake(_head(upstream, far.request_handshake()))
        wires = Wire(), Wire()
        self.unfinished = Unfinished() if unfinished is None else unfinished
        self.pipe = Pipe(
            (codec, wires[0]),
            (far, wires[1]),
            asked=self.asked.append,
            answered=self.answered.append,
            unfinished=self.unfinished,
            judge=judge,
        )
        wires[0].end, wires[1].end = self.pipe.client, self.pipe.upstream
        self.client = Peer(client, wires[0], self.pipe.client)
        self.upstream = Peer(upstream, wires[1], self.pipe.upstream)

    async def settle(self) -> None:
        """Until both ends have worked off what they were given, as far as they may."""
        for _ in range(100_000):
            if not any(end._reading_on for end in (self.pipe.client, self.pipe.upstream)):
                return
            await asyncio.sleep(0)
        raise AssertionError("the ends never come to rest")


def _response(fields: list[tuple[bytes, bytes]]) -> Any:
    from websockets.datastructures import Headers
    from websockets.http11 import Response

    return Response(101, "", Headers([(name.decode(), value.decode()) for name, value in fields]))


def _head(upstream: ServerProtocol, fields: list[tuple[bytes, bytes]]) -> ResponseHead:
    from websockets.datastructures import Headers
    from websockets.http11 import Request

    response = upstream.accept(Request("/", Headers([(name.decode(), value.decode()) for name, value in fields])))
    return response_head(response.status_code, list(response.headers.raw_items()))


def response_head(status: int, fields: Iterable[tuple[str, str]]) -> ResponseHead:
    lines = [f"{name}: {value}" for name, value in fields]
    return parse_response_head("\r\n".join([f"HTTP/1.1 {status}", *lines]).encode("latin-1"))
