"""What an upstream did not come to tell of a stream that was cut short.

A vendor bills what it has made, and tells how much that was at the end. So whoever hangs up just before it would use
the accounts for nothing. How many tokens a byte stands for is learned from the streams that came to their end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aimux.metering.record import RequestRecord
    from aimux.plugin.types import Usage

FIRST_INPUT = 0.25
"""Tokens a byte of what was sent, until the model's own figure is known: a token is about four characters."""
FIRST_OUTPUT = 1 / 40
"""Of a stream, in which each piece of four or more characters has an event around it."""
LONG = 32
"""Tokens of an answer from which something is learned: a shorter one is mostly its first and last events."""
SHARE = 0.05
"""Of the newest stream in an average; the first twenty count alike."""
MAX_KEPT = 1000
Key = tuple[str, str, str, str]


class Rates:
    """Averages over the streams of a model, in tokens a byte."""

    __slots__ = ("input", "output", "seen")

    def __init__(self) -> None:
        self.seen = 0
        self.input, self.output = FIRST_INPUT, FIRST_OUTPUT

    def learn(self, record: RequestRecord, usage: Usage) -> None:
        self.seen += 1
        share = max(SHARE, 1 / self.seen)
        self.input += share * (usage.total_input / max(1, record.bytes_in) - self.input)
        self.output += share * (usage.output_tokens / max(1, record.bytes_out) - self.output)


class Estimates:
    """A sink of records, before those that count: it fills in what is missing of their usage."""

    def __init__(self) -> None:
        self._rates: dict[Key, Rates] = {}

    def __call__(self, record: RequestRecord) -> None:
        usage = record.usage
        if usage is None or not record.coding:
            return
        if not record.error:
            if usage.output_tokens >= LONG and not usage.estimated:
                self._of(record, usage).learn(record, usage)
            return
        if not 200 <= record.status < 300:
            return
        if not usage.model:  # some tell it at the end alone
            usage.model = (record.steps[-1].model if record.steps else "") or record.model
        rates = self._of(record, usage)
        if not usage.total_input:
            usage.input_tokens = round(record.bytes_in * rates.input)
            usage.estimated = True
        if (made := round(record.bytes_out * rates.output)) > usage.output_tokens:
            usage.output_tokens = made
            usage.estimated = True

    def _of(self, record: RequestRecord, usage: Usage) -> Rates:
        key = record.provider, usage.model or record.model, record.method, record.coding
        if (known := self._rates.get(key)) is None:
            while len(self._rates) >= MAX_KEPT:
                del self._rates[next(iter(self._rates))]
            known = self._rates[key] = Rates()
        return known
