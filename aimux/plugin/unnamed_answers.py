"""Answers whose media type does not say what they are: Go's servers call JSON `text/plain` unless they are told, and
some relays call streams so. Clients that have asked for one of them read it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aimux.plugin.meters import Meter

if TYPE_CHECKING:
    from collections.abc import Callable

ENOUGH = 64
"""Bytes that tell a stream of events from anything else."""
_EVENTS = re.compile(rb"(?:\xef\xbb\xbf)?(?:event|data|id|retry)?:")
_READ = ("usage", "complete", "answered", "failed", "limits", "verdict", "stored", "begun", "over")


class UnnamedAnswer(Meter):
    """Reads an answer as what it begins like. Anything else, such as a page, is no answer, and took nothing."""

    sees_end = False
    complete = True

    def __init__(self, stream: Callable[[], Meter], whole: Callable[[], Meter]) -> None:
        """What makes the meters for a stream of events and for a JSON object."""
        super().__init__()
        self._stream = stream
        self._whole = whole
        self._meter: Meter | None = None
        self._start: bytes | None = b""

    @property
    def sent(self) -> int:
        return 0 if self._meter is None else self._meter.sent

    @property
    def torn(self) -> bool:
        return self._meter is not None and self._meter.torn

    def feed(self, data: bytes) -> None:
        if self._start is not None:
            data = self._start = (self._start + data).lstrip()
            if len(data) < ENOUGH:
                return
            self._begin(data)
        if self._meter is not None:
            self._meter.feed(data)
            self._take_over(self._meter)

    def end(self) -> None:
        if self._start:
            data = self._start
            self._begin(data)
            if self._meter is not None:
                self._meter.feed(data)
        if self._meter is not None:
            self._meter.end()
            self._take_over(self._meter)

    def _begin(self, start: bytes) -> None:
        self._start = None
        if start.startswith(b"{"):
            self._meter = self._whole()
        elif _EVENTS.match(start):
            self._meter = self._stream()

    def _take_over(self, meter: Meter) -> None:
        for name in _READ:
            setattr(self, name, getattr(meter, name))
