"""Puts a WebSocket's frames together into messages, for code that looks at whole ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from websockets.frames import Frame

if TYPE_CHECKING:
    from collections.abc import Callable


FRAME = 250
"""Bytes that a withheld frame takes beside its data."""


class Messages:
    """The messages of one direction. The codec bounds their size."""

    def __init__(self, observe: Callable[[bytes], bytes | None], judge: Callable[[bytes], bool] | None) -> None:
        """`observe` sees each whole message before its end goes on, and gives what goes on in its place, None for the
        message itself (so it does where it came in fragments, which have gone on); `judge`, before that, before any of
        it goes on, and one that it answers False does not.
        """
        self.size = 0
        """Bytes that are held of one that has not ended."""
        self._observe = observe
        self._judge = judge
        self._begun = bytearray()  # not a list: a fragment of one byte would take 40
        self._withheld: list[Frame] = []

    def take(self, frame: Frame) -> list[Frame]:
        """The frames that go on now."""
        if self._judge is None:
            self._see(frame)
            return [frame]
        if not frame.fin:
            self._withheld.append(Frame(frame.opcode, bytes(frame.data), fin=False))
            self.size += len(frame.data) + FRAME
            return []
        frames, self._withheld = [*self._withheld, frame], []
        self.size = 0
        if not self._judge(b"".join([one.data for one in frames])):
            return []
        for one in frames:
            self._see(one)
        return frames

    def _see(self, frame: Frame) -> None:
        if not frame.fin:
            self._begun += frame.data
            self.size += len(frame.data)
        elif not self._begun:
            if (other := self._observe(bytes(frame.data))) is not None:
                frame.data = other
        else:
            message = bytes(self._begun + frame.data)
            self.clear()
            self._observe(message)

    def clear(self) -> None:
        """Forget an unfinished message."""
        self._begun.clear()
        self._withheld.clear()
        self.size = 0
