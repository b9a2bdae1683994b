"""Finds an answer's head in what an upstream sends, and reads it.

Most heads differ from an earlier one only in a date, ids and what is left of limits. These are not taken apart: what is
alike is compared as a whole, and only the rest is parsed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from multidict import CIMultiDict, istr

from aimux.http.errors import ProtocolError
from aimux.http.head import CONTENT_LENGTH, SECRET, ResponseHead, length_of, parse_response_head

if TYPE_CHECKING:
    from collections.abc import Collection

MAX_HEAD: Final = 64 * 1024
BEGINNING: Final = b"HTTP/1."
MAX_INTERIM: Final = 16
"""Interim (1xx) answers before the real one; a server that sends more is broken or hostile."""

_MOST_KINDS: Final = 16
_LARGEST: Final = 8 * 1024
_FRAMING: Final = frozenset({"connection", "transfer-encoding"})


class _Shape:
    """Heads that differ only in the values of some lines."""

    __slots__ = ("_alike", "_headers", "_lengths_differ", "_one", "_rest", "_varying")

    def __init__(self, first: bytes, one: ResponseHead, differing: Collection[int]) -> None:
        """`first` is the status line, `one` such a head, and `differing` says which of its lines differ."""
        # All lines of a repeated name: the order of their values matters.
        differ = {one.names[at].lower() for at in differing}
        self._lengths_differ = CONTENT_LENGTH in differ
        self._alike: list[bytes] = []
        """All header lines, empty where they differ."""
        self._varying: list[tuple[int, istr, str, int, int]] = []
        """Of each line that differs: which it is, its name, all from the value before to its own, how long that is, and
        how much of it is the line's."""
        self._headers: CIMultiDict[str] = CIMultiDict()
        """Of the others."""
        between = first
        for at, (name, line) in enumerate(zip(one.names, one.lines, strict=True)):
            key, _, value = line.partition(b": ")
            between += b"\r\n"
            if name.lower() in differ:
                text = between.decode("latin-1") + key.decode("latin-1") + ": "
                self._varying.append((at, istr(name), text, len(text), len(key) + 2))
                self._alike.append(b"")
                between = b""
            else:
                self._headers.add(name, value.decode("latin-1"))
                self._alike.append(line)
                between += line
        self._rest = between.decode("latin-1")
        self._one = one.like([], self._headers, one.length)

    def read(self, block: bytes, text: str) -> ResponseHead | None:
        """The head that `block` is, and `text` in latin-1; None: it is not of this kind, or needs a closer look. Raises
        ProtocolError."""
        # What is alike is kept once for all, not by each head: 2 kB of an open answer.
        kept, headers, end = self._alike.copy(), self._headers.copy(), 0
        for at, name, between, size, begin in self._varying:
            start = end + size
            if text[end:start] != between:
                return None
            end = text.find("\r\n", start)
            if end < 0:
                end = len(text)
            value = text[start:end]
            if not value.isprintable() or value.strip() != value:
                return None
            kept[at] = block[start - begin : end]
            headers.add(name, value)
        if text[end:] != self._rest:
            return None
        one = self._one
        length = length_of(headers.getall(CONTENT_LENGTH)) if self._lengths_differ else one.length
        return one.like(kept, headers, length)


class _Kind:
    """Heads with the same names: the lines of the first, which of them have differed since, and from the second on what
    all had in common."""

    __slots__ = ("differing", "lines", "shape")

    def __init__(self, lines: list[bytes], differing: set[int]) -> None:
        self.lines = lines
        self.differing = differing
        self.shape: _Shape | None = None


class Heads:
    """Reads heads, and remembers what those before were like."""

    def __init__(self) -> None:
        self._shapes: list[_Shape] = []
        """The most recently used first."""
        self._kinds: dict[tuple[bytes, ...], _Kind] = {}
        """By status line, names and framing."""

    def read(self, block: bytes) -> ResponseHead:
        """`block` runs up to the empty line, without the line end before it. Raises ProtocolError."""
        text = block.decode("latin-1")
        for at, shape in enumerate(self._shapes):
            if (head := shape.read(block, text)) is not None:
                if at:
                    self._shapes.insert(0, self._shapes.pop(at))
                return head
        head = parse_response_head(block)
        lines = block.split(b"\r\n")
        if len(block) <= _LARGEST and lines[1:] == head.lines:  # or there is other white space around values
            self._learn(lines[0], head)
        return head

    def _learn(self, first: bytes, head: ResponseHead) -> None:
        names = [name.lower() for name in head.names]
        parts = [
            line if name in _FRAMING else line.partition(b":")[0] for name, line in zip(names, head.lines, strict=True)
        ]
        key = (first, *parts)
        if (kind := self._kinds.get(key)) is None:
            if len(self._kinds) >= _MOST_KINDS:
                self._kinds.clear()
                self._shapes.clear()
            secret = {at for at, name in enumerate(names) if name in SECRET}
            self._kinds[key] = _Kind([b"" if at in secret else line for at, line in enumerate(head.lines)], secret)
            return
        kind.differing.update([at for at, line in enumerate(head.lines) if line != kind.lines[at]])
        if kind.shape is not None:
            self._shapes.remove(kind.shape)
        kind.shape = shape = _Shape(first, head, kind.differing)
        self._shapes.insert(0, shape)


_heads: Final = Heads()


class HeadReader:
    """Finds the head of the real answer. Interim answers end here."""

    # Here and not in an `__init__`, which would cost each request as much as reading two lines.
    began = False
    """The upstream has sent something."""
    _buffer = b""
    _interim = 0

    def feed(self, data: bytes) -> tuple[ResponseHead, bytes] | None:
        """The head and what followed it, or None as long as it isn't whole. Raises ProtocolError."""
        self.began = True
        if self._buffer:
            data = self._buffer + data
        while 0 <= (end := data.find(b"\r\n\r\n")) <= MAX_HEAD:
            head = _heads.read(data[:end])
            data = data[end + 4 :]
            if head.status >= 200 or head.status == 101:
                return head, data
            self._interim += 1
            if self._interim > MAX_INTERIM:
                raise ProtocolError(f"the upstream sent more than {MAX_INTERIM} interim answers")
        if not data.startswith(BEGINNING[: len(data)]):  # of another protocol: the rest of a head would be waited for
            raise ProtocolError("the answer does not begin with an HTTP/1.x status line")
        if len(data) > MAX_HEAD:
            raise ProtocolError(f"the answer's head is larger than {MAX_HEAD} bytes")
        self._buffer = data
        return None
