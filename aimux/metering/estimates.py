"""What an answer took that was cut short, or whose upstream did not say: what was reported, and an estimate of the
rest.

About four characters are a token; how many exactly is learned for each model from answers that are whole. A vendor
charges for what it made, so an answer that was left in the middle is not one token, as some protocols say at its start.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from aimux.plugin.reading import count
from aimux.plugin.usage import COUNTS

if TYPE_CHECKING:
    from aimux.metering.record import RequestRecord
    from aimux.plugin.meters import Meter
    from aimux.plugin.usage import Usage

log = logging.getLogger("aimux.metering")

CHARACTERS = 4.0
"""Characters of a token, until a model's answers have shown better."""
LEAST_OUT, LEAST_IN = 50, 200
"""An answer or a question teaches something from this many tokens on: short ones are mostly framing."""
LEAST, LARGEST = 1.0, 16.0
"""Bytes of a token of a text."""
LEARNED = 0.1
"""How much one answer moves what was learned."""
FITS: Final = 1 << 37
"""The power of 2 above the most tokens that a vendor is believed (`plugin.reading`)."""
MOST = 1000
"""Models that are known."""


class Estimates:
    """What is learned, in this process. A microsecond for each answer."""

    def __init__(self) -> None:
        self._out: dict[tuple[str, str], float] = {}
        self._in: dict[tuple[str, str], float] = {}
        self._doubted: set[str] = set()
        """Providers of which something was told that can't be."""

    def usage(self, record: RequestRecord, meter: Meter) -> Usage:
        """The usage of an answer that is over, however it ended. Estimates are marked."""
        usage = meter.usage
        if usage.beside or not _can_be(usage):
            usage = self._believed(record, usage)
        if not meter.sees_end and (usage.output_tokens or usage.total_input):
            return usage  # JSON reports all or nothing
        sent = meter.sent
        model = (record.provider, usage.model or record.model)
        if (meter.complete or meter.answered) and not meter.failed and usage.output_tokens and usage.total_input:
            if not usage.beside:
                self._learn(model, record, usage, sent)
            return usage
        made = round(sent / self._out.get(model, CHARACTERS))
        if not made:
            return usage  # there was no content whose price could be unreported
        output = max(usage.output_tokens, made)
        known_input = usage.total_input
        if output == usage.output_tokens and known_input:
            return usage
        if known_input:
            return replace(usage, output_tokens=output, estimated=True)
        asked, read = round(record.bytes_in / self._in.get(model, CHARACTERS)), 0
        if (before := meter.before) is not None:  # read moments ago, so that it is in the upstream's cache
            asked, read = asked + before.output_tokens, before.total_input
        return replace(usage, input_tokens=asked, cache_read_tokens=read, output_tokens=output, estimated=True)

    def _believed(self, record: RequestRecord, told: Usage) -> Usage:
        usage = possible(told)
        if usage is not told and record.provider not in self._doubted:
            self._doubted.add(record.provider)
            log.error("%s: the meter of %s tells what can't be: %r", record.request_id, record.provider, told)
        return usage

    def _learn(self, model: tuple[str, str], record: RequestRecord, usage: Usage, sent: int) -> None:
        if usage.output_tokens >= LEAST_OUT and sent:
            _move(self._out, model, sent / usage.output_tokens)
        # More tokens than bytes: most of it was elsewhere, in earlier answers. Many bytes a token: it was pictures.
        if usage.total_input >= LEAST_IN and LEAST <= (asked := record.bytes_in / usage.total_input) <= LARGEST:
            _move(self._in, model, asked)


def possible(usage: Usage) -> Usage:
    """The same if a request can take so much; else a copy without what can't be, marked as an estimate. What a plugin's
    meter tells is in every sum: a number below 0 would give a user room, and a huge one fits no column."""
    if _can_be(usage):
        if not usage.beside:
            return usage
        rest = replace(usage)
        rest.put_beside(())
        if _can_be(rest) and all(map(_can_be, usage.beside)):
            return usage
    usage = replace(usage, requests=count(usage.requests) or 1, beside=(), estimated=True)
    for name in COUNTS:
        setattr(usage, name, count(getattr(usage, name)))
    return usage


def _can_be(usage: Usage) -> bool:
    try:
        # One number has all their bits: to compare each would be 0.8 % of a small request.
        every = (
            usage.input_tokens
            | usage.output_tokens
            | usage.cache_read_tokens
            | usage.cache_write_tokens
            | usage.cache_write_1h_tokens
            | usage.reasoning_tokens
            | usage.server_tools
            | usage.seconds
            | usage.characters
        )
        return 0 <= every < FITS and usage.requests > 0
    except TypeError:  # no whole number
        return False


def _move(known: dict[tuple[str, str], float], model: tuple[str, str], seen: float) -> None:
    seen = min(max(seen, 0.5), LARGEST)
    before = known.get(model)
    if before is not None:
        known[model] = before + LEARNED * (seen - before)
    elif len(known) < MOST:
        known[model] = seen
