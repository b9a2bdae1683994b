"""WebSocket negotiation and framing, sans-IO: the `websockets` library's, with what a relay does differently.

The two sides of a socket negotiate for themselves, so each has a codec of its own. What a codec does not do: answer a
ping (that is for the other end, and the pong comes back from there) and put fragments together. What it does besides
the library: text has to be UTF-8, across fragments too.

permessage-deflate is offered upstream where the client offered it, in both directions without context takeover: a
window kept between messages would cost each idle socket 300 kB, and saves little where the long messages are those
that matter. Messages below COMPRESS_FROM go out as they are: deflate takes 7 µs to make 300 bytes 150. Level 1 makes
120 kB of Codex's 900 in 3 ms; the default level takes twice that for a tenth less.
"""

from __future__ import annotations

import codecs
import logging
from typing import TYPE_CHECKING, cast

from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHeader
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, ServerPerMessageDeflateFactory
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import OPEN, Protocol
from websockets.server import ServerProtocol
from websockets.uri import WebSocketURI

from aimux.http.errors import ProtocolError
from aimux.http.unpacking import most_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from websockets.typing import Subprotocol

    from aimux.http.head import ResponseHead

MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes of a message, decompressed, and so of each of its frames, unless another bound is given."""
COMPRESS_FROM = 1024
HANDSHAKE_HEADERS = frozenset(
    {
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "sec-websocket-version",
    }
)
"""Each side's own: they do not cross."""

_DEFLATE = {"level": 1}
_NO_STATUS = 1005
_LIBRARY_LOG = logging.getLogger("aimux.relay.websockets")
_LIBRARY_LOG.setLevel(logging.ERROR)  # at DEBUG the library writes what the frames hold
_utf8 = codecs.getincrementaldecoder("utf-8")


class HandshakeRefused(ValueError):
    """The client's handshake does not follow RFC 6455. The message says how."""


class LongOnly(Extension):
    """permessage-deflate that leaves short messages alone, which the RFC lets every sender do."""

    def __init__(self, deflate: Extension) -> None:
        self.name = deflate.name
        self._deflate = deflate
        self._compressing = False

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        most = most_of(len(frame.data))
        return self._deflate.decode(frame, max_size=most if max_size is None else min(most, max_size))

    def encode(self, frame: Frame) -> Frame:
        if frame.opcode is Opcode.TEXT or frame.opcode is Opcode.BINARY:
            self._compressing = len(frame.data) >= COMPRESS_FROM
        return self._deflate.encode(frame) if self._compressing else frame


class Codec(Protocol):
    """One side's framing: `receive_data` → `frames_received`; `relay` and `send_close` → `data_to_send`."""

    _text: codecs.IncrementalDecoder | None = None

    def recv_frame(self, frame: Frame) -> None:
        """The library calls this with each frame that is well-formed."""
        opcode = frame.opcode
        if opcode is Opcode.PING:
            self.events.append(frame)
            return
        if opcode is Opcode.TEXT:
            if frame.fin:
                str(frame.data, "utf-8")
            else:
                self._text = _utf8()
        if self._text is not None and opcode in {Opcode.TEXT, Opcode.CONT}:
            self._text.decode(frame.data, frame.fin)
            if frame.fin:
                self._text = None
        super().recv_frame(frame)

    def receive_data(self, data: bytes | bytearray) -> None:
        super().receive_data(data)
        if self.parser_exc is not None:
            # Its frames hold what was being read, possibly megabytes, and only a collection would free them.
            self.parser_exc.__traceback__ = None

    def frames_received(self) -> list[Frame]:
        """The frames since the last call; the handshake is not the codec's, so nothing else can have come."""
        return cast("list[Frame]", self.events_received())

    @property
    def open(self) -> bool:
        """No close frame was sent, and the peer did nothing wrong."""
        return self.state is OPEN

    @property
    def closed_by_peer(self) -> tuple[int | None, str] | None:
        """Code (None: it gave none) and reason of the peer's close frame."""
        close = self.close_rcvd
        if close is None or self.parser_exc is not None:
            return None
        return (None if close.code == _NO_STATUS else int(close.code)), close.reason

    @property
    def fault(self) -> str:
        """How the peer broke the protocol; "" if it did not. A close frame that says so is ready to send."""
        sent = self.close_sent
        return f"{int(sent.code)}: {sent.reason}" if self.parser_exc is not None and sent is not None else ""

    @property
    def overfed(self) -> bool:
        """The peer sent a message above the bound, which does not break the protocol."""
        sent = self.close_sent
        return bool(self.fault) and sent is not None and sent.code == CloseCode.MESSAGE_TOO_BIG

    def relay(self, frame: Frame) -> None:
        """Send a data frame, ping or pong from the other side. Does nothing once this side is closing."""
        if not self.open:
            return
        match frame.opcode:
            case Opcode.TEXT:
                self.send_text(frame.data, frame.fin)
            case Opcode.BINARY:
                self.send_binary(frame.data, frame.fin)
            case Opcode.CONT:
                self.send_continuation(frame.data, frame.fin)
            case Opcode.PING:
                self.send_ping(frame.data)
            case Opcode.PONG:
                self.send_pong(frame.data)

    def _compress_long_only(self) -> None:
        self.extensions = [LongOnly(extension) for extension in self.extensions]


class ClientSide(Codec, ServerProtocol):
    """Faces the client: aimux is the server."""

    def __init__(self, largest: int = MAX_MESSAGE) -> None:
        deflate = ServerPerMessageDeflateFactory(
            server_no_context_takeover=True, client_no_context_takeover=True, compress_settings=_DEFLATE
        )
        super().__init__(state=OPEN, extensions=[deflate], max_size=largest, logger=_LIBRARY_LOG)
        self.largest = largest
        self.subprotocols: list[Subprotocol] = []
        """What the client offers; the upstream chooses."""

    def select_subprotocol(self, subprotocols: Sequence[Subprotocol]) -> Subprotocol | None:
        self.subprotocols = list(subprotocols)
        return None

    def accept_handshake(self, headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
        """The header fields of a 101 to a GET with these headers. Raises HandshakeRefused."""
        try:
            # The library holds values to Latin-1; what the other headers say (Codex: where somebody works) isn't its.
            response = self.accept(Request("/", Headers(_of_handshake(headers))))
        except InvalidHeader as error:
            raise HandshakeRefused(str(error)) from None
        if response.status_code != 101:
            raise HandshakeRefused(str(self.handshake_exc))
        self._compress_long_only()
        return _fields(response.headers)


class UpstreamSide(Codec, ClientProtocol):
    """Faces the upstream: aimux is the client."""

    def __init__(self, *, deflate: bool, subprotocols: Sequence[Subprotocol], largest: int = MAX_MESSAGE) -> None:
        offer = ClientPerMessageDeflateFactory(
            server_no_context_takeover=True,
            client_no_context_takeover=True,
            client_max_window_bits=None,
            compress_settings=_DEFLATE,
        )
        super().__init__(
            WebSocketURI(False, "unused", 80, "/", ""),  # the request's line and `host` are the caller's
            extensions=[offer] if deflate else None,
            subprotocols=subprotocols or None,
            state=OPEN,
            max_size=largest,
            logger=_LIBRARY_LOG,
        )

    def request_handshake(self) -> list[tuple[bytes, bytes]]:
        """The header fields that make a GET a handshake."""
        return _fields(self.connect().headers)

    def check_handshake(self, head: ResponseHead) -> None:
        """Take over what the upstream's 101 chose. Raises ProtocolError."""
        try:
            self.process_response(Response(head.status, "", Headers(head.headers.items())))
        except Exception as error:  # the library has a dozen classes for it, some of them for headers it can't parse
            raise ProtocolError(f"the upstream's WebSocket handshake is not acceptable: {error}") from error
        self._compress_long_only()


def close_reason(text: str) -> str:
    """At most what fits into a close frame."""
    return text.encode()[:123].decode("utf-8", "ignore")


def _of_handshake(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    wanted = HANDSHAKE_HEADERS | {"connection", "upgrade"}
    return [(name, value) for name, value in headers if name.lower() in wanted]


def _fields(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.encode("ascii"), value.encode("ascii")) for name, value in _of_handshake(headers.raw_items())]
