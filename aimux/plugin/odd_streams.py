"""Streams that are written as no vendor writes them: with lines that end in CR, or events whose data has several lines.
Clients read them, so a meter that could not would take a whole answer for one that was cut short."""

from __future__ import annotations

from typing import Final

LONGEST: Final = 1024 * 1024
"""Bytes of an event that is kept for a meter."""


def is_odd(start: bytes) -> bool | None:
    """By the start of a stream. None: its first line of data has not come, or not whole."""
    if b"\n" not in start and 0 <= start.find(b"\r") < len(start) - 1:
        return True
    at = -1 if start.startswith(b"data:") else start.find(b"\ndata:")
    end = start.find(b"\n", at + 1)
    if end < 0 or not start.startswith(b"data:", at + 1):
        return None
    line = start[at + 1 : end].rstrip()
    return line[5:9].lstrip()[:1] == b"{" and line[-1:] != b"}"


class OddStream:
    """Makes one line of each event's data."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0

    @property
    def torn(self) -> bool:
        """An event has begun, and has not ended."""
        return bool(self._rest.strip() or self._data)

    def feed(self, piece: bytes) -> bytes:
        """The events that are whole. Raises ValueError if one is too long."""
        text = self._rest + piece
        half = b"\r" if text.endswith(b"\r") else b""  # perhaps of a CRLF
        text = text[: len(text) - len(half)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = text.split(b"\n")
        self._rest = rest + half
        whole = []
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:].strip())
                self._size += len(line)
            elif not line and self._data:
                whole.append(b"data:%b\n" % b" ".join(self._data))
                self._data.clear()
                self._size = 0
        if self._size + len(self._rest) > LONGEST:
            raise ValueError(f"an event of more than {LONGEST} bytes, in an unusual form")
        return b"".join(whole)
