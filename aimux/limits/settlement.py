"""The end of every lease: what the record of a request says that it took."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimux.limits.rules import Who, cost_at_unknown_prices
from aimux.limits.sums import Lease
from aimux.metering.record import LATER

if TYPE_CHECKING:
    from collections.abc import Callable

    from aimux.accounts.quota import Quota
    from aimux.limits.fair_share import FairShare
    from aimux.limits.leases import Limits
    from aimux.limits.sums import Counter
    from aimux.metering.record import RequestRecord
    from aimux.plugin.usage import Usage

    Cost = Callable[[RequestRecord], int | None]


class Settlement:
    """A sink of records. `cost` gives billionths of a dollar, None where no price is known."""

    def __init__(self, limits: Limits, cost: Cost) -> None:
        self._limits = limits
        self._cost = cost

    def __call__(self, record: RequestRecord) -> None:
        lease, limits, usage = record.lease, self._limits, record.usage
        if not isinstance(lease, Lease):
            if usage is not None and (record.method == LATER or record.time < limits.adopted_at):
                self._add(record, usage, ())
            return
        record.lease = None
        if usage is not None and record.time < limits.adopted_at:
            self._add(record, usage, lease.plan.counters)
        if not record.attempts:
            limits.cancel(lease)
        elif usage is not None and (usage.anything or record.status >= 400):
            cost, tokens_in = self._cost(record), usage.total_input
            if cost is None:
                cost = cost_at_unknown_prices(tokens_in, usage.output_tokens)
            estimated = usage.estimated or bool(record.error)
            limits.settle(lease, tokens_in, usage.output_tokens, cost, estimated=estimated)
        elif record.status >= 400:
            limits.settle(lease, 0, 0, 0)
        else:
            limits.estimate(lease)

    def _add(self, record: RequestRecord, usage: Usage, counted: tuple[Counter, ...]) -> None:
        """Under limits that came while it ran, a request counts as well. What is used behind an answer counts in the
        windows in which it is told."""
        cost = self._cost(record)
        if cost is None:
            cost = cost_at_unknown_prices(usage.total_input, usage.output_tokens)
        sender, at = record.sender, record.time
        who, tokens = Who(record.user, sender.token, sender.groups), usage.total_input + usage.output_tokens
        self._limits.add(who, record.provider, record.model, at, tokens, cost, at + record.duration, counted)


class FairMeter:
    """A sink of records: who has moved an account's windows, by what it would have cost, which is how vendors weigh."""

    def __init__(self, fair: FairShare, quota: Callable[[str, str], Quota | None], cost: Cost) -> None:
        """`quota` is of a provider's account, by name."""
        self._fair = fair
        self._quota = quota
        self._cost = cost

    def __call__(self, record: RequestRecord) -> None:
        usage = record.usage
        if not self._fair.on or usage is None or not record.account:
            return
        quota = self._quota(record.provider, record.account)
        cost = self._cost(record)
        units = cost_at_unknown_prices(usage.total_input, usage.output_tokens) if cost is None else cost
        if quota is not None and units:
            self._fair.metered(quota, record.user, units, record.time + record.duration)
