"""Compares the vendors' own windows (5 hours, 7 days, credits) with what was metered: use outside aimux becomes
visible.

What an account's headers report is sampled; between two samples a window has moved by some amount, while some tokens
went through aimux. If it moved in an hour without any, somebody used the account otherwise: by the vendor's own app, or
another gateway.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from aimux.metering.calendar import HOUR, Calendar
from aimux.metering.usage import EVERYTHING
from aimux.storage.times import now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aimux.metering.metrics import AccountView
    from aimux.metering.reports import Reports
    from aimux.metering.spans import Span
    from aimux.metering.usage import Item
    from aimux.plugin.types import LimitWindow
    from aimux.storage import Database

SAMPLE_EVERY = 300_000
"""Milliseconds between two samples of a window that moves."""
DIP = 0.05
"""A window that shows less by so little is still the same, told by a node that heard of it some seconds before."""
LEAST = 0.002
"""A window that moved by less in an hour did not move: vendors report whole percents, or less precisely."""


class Sample(NamedTuple):
    """`used` is a fraction, `resets_at` in milliseconds."""

    provider: str
    account: str
    window: str
    at: int
    used: float
    resets_at: int | None


class Compared(NamedTuple):
    """A window and what was metered meanwhile. `moved` and `unexplained` are in windows: 1.5 is one and a half
    windows."""

    provider: str
    account: str
    window: str
    used: float
    resets_at: int | None
    moved: float
    unexplained: float
    """The part of `moved` in hours in which nothing was metered."""
    metered: Item | None


class Sampler:
    """Keeps what accounts' headers report."""

    def __init__(self, database: Database, accounts: Callable[[], Iterable[AccountView]]) -> None:
        self._database = database
        self._accounts = accounts
        self._last: dict[tuple[str, str, str], Sample] = {}

    async def sample(self, at: int) -> int:
        """Keep the windows that have changed. Returns how many. Raises StorageError."""
        fresh = [
            sample
            for account in self._accounts()
            for window in list(account.limits.values())
            if (sample := self._changed(account, window, at)) is not None
        ]
        if fresh:
            from aimux.storage.schema.ledger import account_windows

            async with self._database.write() as connection:
                await connection.execute(account_windows.insert(), [sample._asdict() for sample in fresh])
            self._last |= {sample[:3]: sample for sample in fresh}
        return len(fresh)

    def _changed(self, account: AccountView, window: LimitWindow, at: int) -> Sample | None:
        if window.used is None:
            return None
        resets_at = None if window.resets_at is None else int(window.resets_at * 1000)
        sample = Sample(account.provider, account.name, window.name, at, window.used, resets_at)
        last = self._last.get(sample[:3])
        # What was sampled ahead of the clock was so by one that was wrong.
        if last is not None and (0 <= at - last.at < SAMPLE_EVERY or sample[4:] == last[4:]):
            return None
        return sample


async def compare(database: Database, reports: Reports, span: Span) -> list[Compared]:
    """Each window of each account that was sampled in the span. Raises StorageError."""
    from sqlalchemy import select

    from aimux.storage.schema.ledger import account_windows

    columns = account_windows.c
    statement = (
        select(columns.provider, columns.account, columns.window, columns.at, columns.used, columns.resets_at)
        .where(columns.at >= span.since, columns.at < min(span.until, now() + 1))
        .order_by(columns.provider, columns.account, columns.window, columns.at)
    )
    async with database.read() as connection:
        samples = [Sample(*row) for row in await connection.execute(statement)]
    metered = await reports.series("account", span, EVERYTHING, "hour")
    totals = {item.name: item for item in (await reports.usage("account", span)).items}
    busy = {(start, name) for (start, name), item in metered.items() if item.tokens}
    windows: dict[tuple[str, str, str], list[Sample]] = {}
    for sample in samples:
        windows.setdefault(sample[:3], []).append(sample)
    return [_compared(those, busy, totals, reports.calendar) for those in windows.values()]


def _compared(
    samples: list[Sample], busy: set[tuple[int, str]], totals: dict[str, Item], calendar: Calendar
) -> Compared:
    last = samples[-1]
    name = f"{last.provider}/{last.account}"
    moved = unexplained = 0.0
    hours: dict[int, float] = {}
    highest = samples[0].used
    for before, after in pairwise(samples):
        if not _same(before, after):
            highest = 0.0  # a window that began anew has moved by all that it shows
        elif after.used < highest - DIP:
            highest = after.used  # the vendor gave something back
        step = after.used - highest
        if step > 0:
            highest = after.used
            moved += step
            hour = calendar.hour(after.at)
            hours[hour] = hours.get(hour, 0.0) + step
    for hour, step in hours.items():
        # What a request took shows in the headers of the next one, which may be an hour later.
        if step >= LEAST and not {(hour, name), (hour - HOUR, name)} & busy:
            unexplained += step
    return Compared(*last[:3], last.used, last.resets_at, moved, unexplained, totals.get(name))


def _same(before: Sample, after: Sample) -> bool:
    """Whether both belong to one window: vendors' resets vary by seconds, another window's by its length."""
    if before.resets_at is None or after.resets_at is None:
        return after.used >= before.used - DIP
    return abs(after.resets_at - before.resets_at) < HOUR // 2
