"""The end of every lease: what the record of a request says that it took."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from aimux.limits.leases import Limits
    from aimux.metering.record import RequestRecord

UNKNOWN_PRICES = (5_000, 25_000)
"""Billionths of a dollar a token of a model whose price is unknown, in and out: it is never free."""


class Settlement:
    """A sink of records. `cost` gives billionths of a dollar, None where no price is known."""

    def __init__(self, limits: Limits, cost: Callable[[RequestRecord], int | None]) -> None:
        self._limits = limits
        self._cost = cost

    def __call__(self, record: RequestRecord) -> None:
        limits, usage = self._limits, record.usage
        lease = limits.open(record.id)
        if lease is None:
            return
        if not record.attempts:
            limits.cancel(lease)
        elif usage is not None and (usage.total_input or usage.output_tokens or record.status >= 400):
            tokens_in, tokens_out = usage.total_input, usage.output_tokens
            cost = self._cost(record)
            if cost is None:
                cost = tokens_in * UNKNOWN_PRICES[0] + tokens_out * UNKNOWN_PRICES[1]
            limits.settle(lease, tokens_in, tokens_out, cost, estimated=usage.estimated or bool(record.error))
        elif record.status >= 400:
            limits.settle(lease, 0, 0, 0)
        else:
            limits.estimate(lease)
