"""A client's request, sans-IO: a strict parser for its head, and a reader for its body.

Heads follow the rules of `aimux.http.head`, and these: one space on each side of the target, HTTP/1.1 or HTTP/1.0, a
method in capitals, exactly one `Host` (HTTP/1.0: at most one), at most one `content-length`, and never two framings.
What breaks a rule is refused whole, and its connection ends: a request that could be read as two must not go upstream.
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import TYPE_CHECKING, Final

from multidict import CIMultiDict, istr

from aimux.http.errors import ProtocolError
from aimux.http.framing import Chunked
from aimux.http.head import CONNECTION, CONTENT_LENGTH, DIGITS, TRANSFER_ENCODING, FieldLines, names_of

if TYPE_CHECKING:
    from aimux.http.head import Field

_METHOD = re.compile(rb"[A-Z][A-Z-]{0,31}")
_TARGET = re.compile(rb"[\x21-\x7e\x80-\xff]++")
_LENGTH: Final = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ([0-9]{1,18})(?=\r\n|\Z)")
MAX_DIGITS: Final = 18
FRAMING_FROM: Final = 256 * 1024
"""From this many bytes on, less than a third of a chunked body may be framing. A chunk costs 1.5 µs."""
MAX_KEPT: Final = 8 * 1024
"""The largest head that a connection remembers. Heads of the vendors' programs have 1 to 3 kB, and strangers must not
decide how much idle connections hold."""
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
_HOST = istr("host")
_EXPECT = istr("expect")
_UNSERVED = {
    b"CONNECT": "the method CONNECT is not served: aimux is no proxy, its address is a client's base URL",
    b"TRACE": "the method TRACE is not served",
}
"""CONNECT asks for a tunnel; TRACE makes an upstream repeat what it got, the account's credential included."""
_IN_NO_TRAILER = frozenset({"content-length", "transfer-encoding"})
_REMEMBERED: Final = 1024
_SHORT: Final = 256


class RequestError(Exception):
    """Not a request that aimux can read; it is answered with `status`. The message quotes nothing of it."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class _RequestLines(dict[bytes, tuple[str, str, bool]]):
    """Request lines → method, target, whether it is HTTP/1.1. Remembered as header lines are."""

    def __missing__(self, line: bytes) -> tuple[str, str, bool]:
        method, _, rest = line.partition(b" ")
        target, _, version = rest.partition(b" ")
        if not (_METHOD.fullmatch(method) and _TARGET.fullmatch(target) and _VERSION.fullmatch(version)):
            raise RequestError("its request line is malformed")
        if version not in {b"HTTP/1.1", b"HTTP/1.0"}:
            raise RequestError("only the versions 1.1 and 1.0 of HTTP are served", 505)
        if method in _UNSERVED:
            raise RequestError(_UNSERVED[method], 501)
        read = (method.decode("ascii"), target.decode("latin-1"), version == b"HTTP/1.1")
        if len(line) <= _SHORT:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[line] = read
        return read


_lines: Final = _RequestLines()
_fields: Final = FieldLines("utf-8", "surrogateescape")


class RequestHead:
    """A request's head. The text of its values is UTF-8, with surrogates for what isn't.

    `lines` are the header lines as they go on, without their ends, `names` the name of each. `length` is None where
    the body is chunked. `connection` is the `Connection` header in lower case, its repetitions joined.
    """

    __slots__ = (
        "connection",
        "expects",
        "headers",
        "http11",
        "keep_alive",
        "length",
        "lines",
        "method",
        "names",
        "target",
    )

    def __init__(self, method: str, target: str, http11: bool, fields: list[Field], lines: list[bytes]) -> None:
        self.method = method
        self.target = target
        self.http11 = http11
        self.names = names_of(fields)
        self.lines = lines
        self.headers = headers = CIMultiDict(fields)
        hosts = headers.getall(_HOST, ())
        if len(hosts) != 1 and (hosts or http11):
            raise RequestError("it must have exactly one Host header")
        self.length: int | None = 0
        if CONTENT_LENGTH in headers:
            values = headers.getall(CONTENT_LENGTH)
            if len(values) > 1 or not DIGITS.fullmatch(values[0]):
                raise RequestError("its Content-Length is not one number")
            self.length = int(values[0])
        if TRANSFER_ENCODING in headers:
            codings = headers.getall(TRANSFER_ENCODING)
            coding = codings[0].lower() if codings[0].isascii() else ""  # the Kelvin sign's lower case is a k
            if len(codings) > 1 or coding != "chunked" or not http11 or CONTENT_LENGTH in headers:
                raise RequestError("it must have either a Content-Length or `Transfer-Encoding: chunked`")
            self.length = None
        self.connection = ""
        self.keep_alive = http11
        if CONNECTION in headers:
            self.connection = ",".join(headers.getall(CONNECTION)).lower()
            self.keep_alive = http11 and "close" not in {option.strip() for option in self.connection.split(",")}
        self.expects = http11 and _EXPECT in headers and headers[_EXPECT].lower() == "100-continue"
        """It wants to hear `100 Continue` before it sends its body."""


def parse_request_head(block: bytes) -> RequestHead:
    """`block` runs up to the empty line, without the line end before it. Raises RequestError."""
    lines = block.split(b"\r\n")
    method, target, http11 = _lines[lines.pop(0)]
    try:
        fields = _fields.read(lines)
    except ProtocolError as error:
        raise RequestError(f"it has {error}") from None
    return RequestHead(method, target, http11, fields, _fields.shared(lines))


class LastHead:
    """The head of a connection's last request: the next one is usually the same except for its length.

    Recognizing it costs 0.5 µs, parsing a head of 1 kB costs 12.
    """

    __slots__ = ("_after", "_before", "_begin", "_behind", "_head", "_length")

    def __init__(self) -> None:
        self._head: RequestHead | None = None
        self._before = b""
        self._after = b""
        self._begin = self._behind = 0
        """Their sizes."""
        self._length = False
        """Only the length's digits may be between the two."""

    def keep(self, block: bytes, head: RequestHead) -> None:
        if len(block) > MAX_KEPT:
            self._head = None
            return
        found = _LENGTH.search(block) if head.length else None
        self._head, self._length = head, found is not None
        self._before, self._after = (block[: found.start(1)], block[found.end(1) :]) if found else (block, b"")
        self._begin, self._behind = len(self._before), len(self._after)

    def known(self, block: bytes) -> RequestHead | None:
        """The head that `block` is, if the last one was the same; its length is adjusted."""
        head = self._head
        if head is None or not block.startswith(self._before) or not block.endswith(self._after):
            return None
        digits = block[self._begin : len(block) - self._behind]
        if not self._length:
            return None if digits else head
        if len(digits) > MAX_DIGITS or not digits.isdigit():
            return None
        head.length = int(digits)
        head.headers[CONTENT_LENGTH] = digits.decode()
        return head


class BodyReader:
    """Collects a request's body. `feed` until `complete`; `rest` is then what followed it."""

    __slots__ = ("_chunks", "_data", "_left", "complete", "received", "rest", "size")

    def __init__(self, length: int | None) -> None:
        """`length` None: it is chunked."""
        self._chunks = Chunked() if length is None else None
        self._left = length or 0
        # Not a list of pieces, because a chunk of one byte would take 60; and taking its value does not copy.
        self._data = BytesIO()
        self.complete = length == 0
        self.received = 0
        """Bytes, framing included."""
        self.size = 0
        """Bytes of the payload."""
        self.rest = b""

    @property
    def chunked(self) -> bool:
        return self._chunks is not None

    @property
    def unread(self) -> bytes:
        """What was fed and would take too long now: `feed` again in another round, with nothing."""
        return self._chunks.unread if self._chunks is not None else b""

    def feed(self, data: bytes) -> None:
        """Raises RequestError for chunks that break the rules."""
        self.received += len(data)
        if self._chunks is not None:
            self._feed_chunks(self._chunks, data)
        elif len(data) < self._left:
            self._left -= len(data)
            self.size += len(data)
            self._data.write(data)
        else:
            self.size += self._left
            self._data.write(data[: self._left])
            self.rest = data[self._left :]
            self.complete = True

    def _feed_chunks(self, chunks: Chunked, data: bytes) -> None:
        try:
            _, payload = chunks.feed(data)
            self.size += self._data.write(b"".join(payload))
            read = self.received - len(chunks.unread)
            if read > FRAMING_FROM and 3 * self.size < 2 * read:
                raise ProtocolError("the answer has chunks of a few bytes each")
            if chunks.done:
                # They end here like an answer's; but a framing header among them is an attack.
                for name, _ in _fields.read(chunks.trailers.split(b"\r\n")) if chunks.trailers else ():
                    if name.lower() in _IN_NO_TRAILER:
                        raise ProtocolError("a trailer field that is not allowed there")
                self.rest = chunks.rest
                self.complete = True
        except ProtocolError as error:
            raise RequestError(str(error).replace("the answer has", "its body has")) from None

    def drop(self) -> None:
        """Forget what came so far: nobody wants it."""
        self._data = BytesIO()

    def take(self) -> bytes:
        """The payload, once."""
        data, self._data = self._data, BytesIO()
        return data.getvalue()
