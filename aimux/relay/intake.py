"""Unread bytes of a WebSocket's peer, cut into pieces that are read in a fraction of a millisecond each.

A packet may hold tens of thousands of empty frames, each of which costs 6 µs, or a part of a large one, which costs
nothing until its end has come. So pieces are cut at frames, of which only the lengths are read here.
"""

from __future__ import annotations

FRAMES = 32
"""Frames in a piece."""
PIECE = 8 * 1024
"""Bytes of a piece with several frames."""
PLAIN, PACKED = 64 * 1024, 160
"""Bytes of a frame, as it is and compressed, that is read in a tenth of a millisecond and needs no round of its own."""
_COMPRESSED, _OPCODE = 0x40, 0x0F


class Intake:
    """`put`, then `take` while it is `ready`; or ask whether a packet can be read `at_once`."""

    __slots__ = ("_held", "_missing", "_missing_slow", "_packed")

    def __init__(self) -> None:
        self._held = bytearray()
        self._missing = 0
        """Missing bytes of a frame whose beginning was taken."""
        self._missing_slow = False
        self._packed = False
        """The message whose frames are arriving is compressed."""

    @property
    def ready(self) -> bool:
        return bool(self._held) and (self._missing > 0 or frame_size(self._held, 0) > 0)

    def at_once(self, data: bytes) -> bool:
        """Whether this is at most one frame, and quickly read; then it counts as taken. Saves copying it."""
        if self._held or self._missing or not data:
            return not data
        size = frame_size(data, 0)
        if size != len(data) or self._slow(data[0], size):
            return False
        self._begin(data[0])
        return True

    def put(self, data: bytes) -> None:
        self._held += data

    def take(self, *, quick: bool = False) -> bytes:
        """A few small frames, or the available part of a large one. `quick`: nothing that needs a round of its own."""
        held, size = self._held, len(self._held)
        position = min(self._missing, size)
        if quick and self._missing_slow and position == self._missing:
            return b""  # with its end all of it is read
        self._missing -= position
        frames = 0 if not position else FRAMES
        while frames < FRAMES and position < PIECE and (length := frame_size(held, position)):
            first = held[position]
            slow = self._slow(first, length)
            if (frames and length > PIECE) or (quick and slow and position + length <= size):
                break
            self._begin(first)
            self._missing_slow = slow
            frames += 1
            position += length
        if position > size:
            self._missing = position - size
        piece = bytes(held[:position])
        del held[:position]
        return piece

    def clear(self) -> None:
        self._held.clear()

    def _slow(self, first: int, size: int) -> bool:
        packed = self._packed if not first & _OPCODE else bool(first & _COMPRESSED)
        return size > (PACKED if packed else PLAIN)

    def _begin(self, first: int) -> None:
        if 0 < first & _OPCODE < 8:
            self._packed = bool(first & _COMPRESSED)


def frame_size(data: bytes | bytearray, begin: int) -> int:
    """Bytes of the frame that begins there, with its head; 0 as long as the head isn't whole."""
    there = len(data) - begin
    if there < 2:
        return 0
    second = data[begin + 1]
    length, head = second & 0x7F, 2 + (4 if second & 0x80 else 0)
    if length < 126:
        return head + length
    width = 2 if length == 126 else 8
    if there < 2 + width:
        return 0
    return head + width + int.from_bytes(data[begin + 2 : begin + 2 + width], "big")
