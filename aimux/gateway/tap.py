"""A meter's seat beside the stream: it sees decoded copies, and whatever it does the stream goes on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aimux.plugin.codings import DecodeError, Decoder, decoder

if TYPE_CHECKING:
    from collections.abc import Callable

    from aimux.plugin.meters import Meter

log = logging.getLogger("aimux.metering")


class Tap:
    """Feeds a meter. `truncated` is True only where the meter could follow and did not see the protocol's end, and
    `torn` where the payload ended inside an event."""

    __slots__ = ("_decoder", "_meter", "_name", "torn", "truncated")

    def __init__(self, meter: Meter, coding: str, name: str) -> None:
        self._meter: Meter | None = meter
        self._name = name
        self._decoder: Decoder | None = None
        self.truncated = False
        self.torn = False
        if coding and coding != "identity":
            try:
                self._decoder = decoder(coding)
            except DecodeError as error:
                self.drop(error)

    def feed(self, payload: bytes) -> None:
        meter = self._meter
        if meter is None:
            return
        try:
            if self._decoder is not None:
                payload = self._decoder.decode(payload)
            meter.feed(payload)
        except Exception as error:  # a meter's fault must not reach the stream
            self.drop(error)

    def direct(self) -> Callable[[bytes], object]:
        """What `feed` comes down to, less its guard."""
        return self.feed if self._meter is None or self._decoder is not None else self._meter.feed

    def end(self) -> None:
        """The payload is over."""
        meter = self._meter
        if meter is None:
            return
        try:
            self.torn = meter.torn
            meter.end()
        except Exception as error:  # as above
            self.drop(error)
        else:
            self.truncated = not meter.complete

    @property
    def complete(self) -> bool:
        """The protocol's own last event was seen."""
        return self._meter is not None and self._meter.complete

    def drop(self, error: Exception) -> None:
        """Stop metering: the meter failed."""
        self._meter = None
        log.warning("usage of a %s answer can't be read: %s: %s", self._name, type(error).__name__, error)
