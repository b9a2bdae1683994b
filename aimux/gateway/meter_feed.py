"""Shows a meter decoded copies of a stream; whatever the meter does, the stream goes on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aimux.plugin.codings import DecodeError, Decoder, decoder_of

if TYPE_CHECKING:
    from aimux.plugin.body import Body
    from aimux.plugin.meters import Meter

log = logging.getLogger("aimux.metering")


MOST_SHOWN = 1024 * 1024
"""Bytes of a request: what is larger would take the loop long to parse."""


def show_request(meter: Meter, body: Body, name: str) -> None:
    """Show a meter what was asked; of what is too large, nothing."""
    try:
        meter.asked((body.decoded() or b"") if len(body.raw) <= MOST_SHOWN else b"")
    except Exception as error:  # a meter's fault must not reach the answer
        log.warning("a request to %s can't be read for its usage: %s: %s", name, type(error).__name__, error)


class MeterFeed:
    """Feeds a meter. `truncated` is True only if the meter could follow and saw neither the protocol's end nor a whole
    answer, and `torn` if the payload ended inside an event. `whole`: the protocol's last event was seen, and nothing
    began behind it.

    Pieces of the payload go into `pending`, and `flush` shows the meter several at once: searching 60 events together
    costs as much as searching five one by one.
    """

    __slots__ = ("_decoder", "_meter", "_name", "pending", "torn", "truncated", "whole")

    def __init__(self, meter: Meter, coding: str, name: str) -> None:
        self._meter: Meter | None = meter
        self._name = name
        self._decoder: Decoder | None = None
        self.pending: list[bytes] = []
        self.truncated = False
        self.torn = False
        self.whole = False
        if coding:
            try:
                self._decoder = decoder_of(coding)
            except DecodeError as error:
                self.drop(error)

    def flush(self) -> None:
        payload = b"".join(self.pending)
        self.pending.clear()
        meter = self._meter
        if meter is None or not payload:
            return
        try:
            if self._decoder is not None:
                payload = self._decoder.decode(payload)
            meter.feed(payload)
        except Exception as error:  # a meter's fault must not reach the stream
            self.drop(error)

    def end(self) -> None:
        """The payload is over."""
        self.flush()
        meter = self._meter
        if meter is None:
            return
        try:
            self.torn = meter.torn
            junk = self.torn and meter.complete
            meter.end()
        except Exception as error:  # as above
            self.drop(error)
        else:
            self.truncated = not (meter.complete or (meter.answered and not self.torn))
            self.whole = meter.sees_end and meter.complete and not junk

    @property
    def complete(self) -> bool:
        """The protocol's own last event was seen."""
        self.flush()
        return self._meter is not None and self._meter.complete

    @property
    def over(self) -> bool:
        """The same, and nothing began behind it."""
        complete, meter = self.complete, self._meter
        return complete and meter is not None and meter.sees_end and not meter.torn

    def drop(self, error: Exception) -> None:
        """Stop metering: the meter failed."""
        self._meter = None
        log.warning("usage of a %s answer can't be read: %s: %s", self._name, type(error).__name__, error)
