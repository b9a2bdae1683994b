"""Where an answer's body ends, sans-IO: one framer for each of HTTP/1.1's ways to say it.

A framer is fed with what the upstream sent and returns what may go to the client unchanged together with the payload
inside it. It holds back only what could turn out to be the body's end, so that a stream that ends too early can still
be told from a complete one. Trailers end here: they can carry what must not pass, and no client reads them.
"""

from __future__ import annotations

import re
from typing import Final

from aimux.http.errors import ProtocolError

MAX_CHUNK_LINE = 256
MAX_TRAILERS = 16 * 1024
MAX_CHUNKS = 256
"""Chunks that one `feed` reads, in about 0.3 ms."""
LAST_CHUNK: Final = b"0\r\n\r\n"

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_QUOTED = rb'"(?>(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*)"'
# Lines pass as they came, so extensions have to be what every client can read: without the white space that RFC 9112
# allows around the signs, but llhttp does not.
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?>(?:;%b(?:=(?:%b|%b))?)*)" % (_TOKEN, _TOKEN, _QUOTED))


class _ChunkHeads(dict[int, bytes]):
    """The size of a whole chunk, framing included → how it begins where nothing but lower-case digits tells its
    length; empty where no chunk but the last has that size.

    The events of a stream have few different sizes: a look-up costs 0.05 µs, reading the line 0.5.
    """

    def __missing__(self, size: int) -> bytes:
        heads = [b"%x\r\n" % payload for payload in range(size - 12, size - 4) if payload > 0]
        head = next((head for head in heads if len(head) + int(head, 16) + 2 == size), b"")
        if len(self) < 8192:
            self[size] = head
        return head


chunk_heads: Final = _ChunkHeads()

Pieces = tuple[bytes, ...] | list[bytes]


def chunk(data: bytes) -> bytes:
    """One chunk; nothing for nothing, because an empty one would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


class Framer:
    """`done`: the body is complete. `clean`: the connection can carry another message after it."""

    done = False
    clean = True
    unread = b""
    """Fed bytes that would take too long now: call `feed` again in another round, with nothing."""

    def feed(self, data: bytes) -> tuple[bytes, Pieces]:
        """What to forward as it is, and the payload in it. Raises ProtocolError."""
        raise NotImplementedError

    def eof(self) -> None:
        """The upstream ended the connection: sets `done` if that is how this framing ends."""

    def wrap(self, data: bytes) -> bytes:
        """`data` (an error event) framed so that it can follow what was forwarded so far."""
        return data

    @property
    def endable(self) -> bool:
        """Whether what was forwarded so far becomes a whole body if it is ended now."""
        return False


class NoBody(Framer):
    """HEAD, 204, 304."""

    done = True

    def feed(self, data: bytes) -> tuple[bytes, Pieces]:
        self.clean = not data
        return b"", ()


class Length(Framer):
    """`content-length`."""

    def __init__(self, length: int) -> None:
        self.remaining = length
        self.done = length == 0

    def feed(self, data: bytes) -> tuple[bytes, Pieces]:
        if len(data) > self.remaining:
            data = data[: self.remaining]
            self.clean = False
        self.remaining -= len(data)
        self.done = not self.remaining
        return data, (data,)

    def wrap(self, data: bytes) -> bytes:
        """Nothing if it would fill the length up: the answer would look whole."""
        return data if len(data) < self.remaining else b""


class UntilClose(Framer):
    """The body ends with the connection."""

    clean = False

    def feed(self, data: bytes) -> tuple[bytes, Pieces]:
        return data, (data,)

    def eof(self) -> None:
        self.done = True

    @property
    def endable(self) -> bool:
        return True


class Chunked(Framer):
    """`transfer-encoding: chunked`, passed through chunk by chunk as it came.

    `_left` is what is missing of the current chunk, its CRLF included (0: a size line is next). The last chunk is held
    back: whoever forwards the body writes it, once the body is known to be whole.
    """

    trailers = b""
    """Their lines, without the last one's end, when `done`."""
    rest = b""
    """What followed the body."""
    _held = b""
    _left = 0
    _trailing = False

    def __init__(self) -> None:
        self.between = True  # not in the class: it is asked for each event, and found sooner here
        """A chunk begins with the next packet."""

    def feed(self, data: bytes) -> tuple[bytes, Pieces]:
        if self.unread:
            data, self.unread = self.unread + data, b""
        fed = self._feed(data)
        self.between = not (self._left or self._held or self._trailing or self.unread)
        return fed

    def _feed(self, data: bytes) -> tuple[bytes, Pieces]:
        if self._trailing:
            self._read_trailers(data)
            return b"", ()
        if self._held:
            data = self._held + data
            self._held = b""
        pieces: list[bytes] = []
        position, size = 0, len(data)
        while position < size:
            if self._left:
                position = self._chunk_data(data, position, pieces)
                continue
            if len(pieces) >= MAX_CHUNKS:
                self.unread = data[position:]
                return data[:position], pieces
            end = data.find(b"\r\n", position, position + MAX_CHUNK_LINE)
            if end < 0:
                if size - position >= MAX_CHUNK_LINE:
                    raise ProtocolError("the answer has an endless chunk size line")
                self._held = data[position:]
                return data[:position], pieces
            line = _CHUNK_LINE.fullmatch(data, position, end)
            if line is None:
                raise ProtocolError("the answer has a malformed chunk size")
            length = int(line[1], 16)
            if not length:
                self._trailing = True
                self._read_trailers(data[end + 2 :])
                return data[:position], pieces
            self._left = length + 2
            position = end + 2
        return data, pieces

    def _chunk_data(self, data: bytes, position: int, pieces: list[bytes]) -> int:
        """Take what belongs to the current chunk; its CRLF may come split."""
        payload = self._left - 2
        if payload > 0:
            piece = data[position : position + payload]
            pieces.append(piece)
            self._left -= len(piece)
            position += len(piece)
        while self._left and self._left <= 2 and position < len(data):
            if data[position] != (13 if self._left == 2 else 10):
                raise ProtocolError("the answer has a chunk that doesn't end where it said")
            self._left -= 1
            position += 1
        return position

    def _read_trailers(self, data: bytes) -> None:
        """`_held` is what came after the last chunk's size line: trailer lines and the empty line that ends them."""
        data = self._held + data
        end = 0 if data.startswith(b"\r\n") else data.find(b"\r\n\r\n") + 2
        if data.startswith(b"\r\n") or end > 1:
            self._held = b""
            self.done = True
            self.trailers = data[: end - 2] if end else b""
            self.rest = data[end + 2 :]
            self.clean = not self.rest
        elif len(data) > MAX_TRAILERS:
            raise ProtocolError("the answer has endless trailers")
        else:
            self._held = data

    @property
    def endable(self) -> bool:
        return self._left <= 2

    def wrap(self, data: bytes) -> bytes:
        if not self._left:
            return chunk(data)
        if self._left <= 2:
            return b"\r\n"[2 - self._left :] + chunk(data)
        room = self._left - 2
        return data if len(data) <= room else data[:room] + b"\r\n" + chunk(data[room:])


def framer_for(method: str, status: int, *, chunked: bool, length: int | None) -> Framer:
    """RFC 9112, section 6.3, for an answer to `method`."""
    if method == "HEAD" or status in {204, 304}:
        return NoBody()
    if chunked:
        return Chunked()
    return UntilClose() if length is None else Length(length)
