"""Messages of WebSockets that have arrived only in part: what they all hold together is bounded."""

from __future__ import annotations

from typing import Protocol

MOST = 64 * 1024 * 1024
"""Bytes. Codex's messages have up to 1 MB each, and arrive within a second."""


class Holder(Protocol):
    """One side of a socket."""

    def give_up(self, why: str) -> None:
        """End the socket, and hold nothing any more."""


class Unfinished:
    """Those of one process. If they hold too much, the largest is given up."""

    def __init__(self, most: int = MOST) -> None:
        self.total = 0
        self._most = most
        self._held: dict[Holder, int] = {}

    def holds(self, holder: Holder, size: int) -> None:
        """A side holds this much from now on."""
        self.total += size - self._held.pop(holder, 0)
        if size:
            self._held[holder] = size
        while self.total > self._most:
            largest = max(self._held, key=self._held.__getitem__)
            self.total -= self._held.pop(largest)
            largest.give_up("too much of unfinished messages is held")
