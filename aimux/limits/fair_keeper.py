"""Has fair share know what it did not see: who used what before this process began, and what other nodes serve."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from aimux.limits.fair_share import News
from aimux.limits.history import costs_of_hours
from aimux.metering.calendar import HOUR
from aimux.metering.windows import SAMPLE_EVERY
from aimux.storage import MOST_TOLD, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from aimux.accounts import Account
    from aimux.accounts.quota import Quota
    from aimux.limits.fair_share import FairShare
    from aimux.storage import Database

    Place = tuple[str, str, str]
    """A provider, an account, a window."""

log = logging.getLogger(__name__)

EVERY = 1.0
LONGEST = 32 * 24 * HOUR
"""Milliseconds: of windows that began longer ago the beginning is not looked for."""


class _Told(NamedTuple):
    """What a node tells of somebody at an account."""

    provider: str
    account: str
    user: str
    weight: float | None
    units: float


class FairKeeper:
    """Of one node. Nodes tell each other once a second; what is lost while the database is away is not told again."""

    def __init__(self, database: Database, fair: FairShare, accounts: Callable[[], Iterable[Account]]) -> None:
        self._database = database
        self._fair = fair
        self._accounts = accounts
        self._remembers = False
        """Whether the ledger was asked since fair share was switched on."""
        database.hear(self._heard)

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self.round(time.time())
            await asyncio.sleep(EVERY)

    async def round(self, now: float) -> None:
        if not self._fair.on:
            self._remembers = False
            return
        try:
            if not self._remembers:
                await self._remember(now)
                self._remembers = True
            await self._tell()
        except StorageError as error:
            log.debug("whose use of accounts other processes have seen is not known here: %s", error)

    async def _remember(self, now: float) -> None:
        windows = self._windows()
        begun = await self._begun({place: resets_at for place, (_, resets_at) in windows.items()}, int(now * 1000))
        if not begun:
            return
        taken = await self._taken(min(begun.values()))
        shared: defaultdict[tuple[Quota, str], defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
        for place, began in begun.items():
            provider, account, window = place
            for user, start, units in taken[provider, account]:
                if start >= began:
                    shared[windows[place][0], window][user] += units
        for (quota, window), people in shared.items():
            self._fair.remember(quota, window, people, now)

    def _windows(self) -> dict[Place, tuple[Quota, int]]:
        """Those of whole accounts that end: their quota, and when, in milliseconds."""
        return {
            (account.provider, account.name, window.name): (account.quota, int(window.resets_at * 1000))
            for account in self._accounts()
            for window in account.quota.windows.values()
            if window.scope is None and window.used and window.resets_at is not None
        }

    async def _begun(self, resets: Mapping[Place, int], now: int) -> dict[Place, int]:
        """Requests from this hour on were the windows', which begin anew at `resets`: by the first sample of each."""
        from sqlalchemy import func, select

        from aimux.storage.schema.ledger import account_windows as samples

        if not resets:
            return {}
        columns = samples.c.provider, samples.c.account, samples.c.window
        query = (
            select(*columns, samples.c.resets_at, func.min(samples.c.at))
            .where(samples.c.at > now - LONGEST, samples.c.resets_at > now)
            .group_by(*columns, samples.c.resets_at)
        )
        found: dict[Place, int] = {}
        async with self._database.read() as connection:
            for provider, account, window, resets_at, at in await connection.execute(query):
                place = provider, account, window
                if abs(resets.get(place, 0) - resets_at) < HOUR // 2:  # vendors' resets vary by seconds
                    found[place] = min(at, found.get(place, at))
        # Sums are by the hour: the one in which it began counts if it began in the first half of it.
        return {place: at - SAMPLE_EVERY - HOUR // 2 for place, at in found.items()}

    async def _taken(self, since: int) -> dict[tuple[str, str], list[tuple[str, int, int]]]:
        """By provider and account: user, hour, and what the requests cost."""
        from sqlalchemy import func, select

        from aimux.storage.schema.ledger import usage_hours as hours
        from aimux.storage.schema.ledger import usage_keys as keys

        columns = keys.c.provider, keys.c.account, keys.c.user, hours.c.start
        query = (
            select(*columns, func.sum(costs_of_hours()))
            .join_from(hours, keys, keys.c.id == hours.c.key)
            .where(hours.c.start >= since)
            .group_by(*columns)
        )
        found: defaultdict[tuple[str, str], list[tuple[str, int, int]]] = defaultdict(list)
        async with self._database.read() as connection:
            for provider, account, user, start, cost in await connection.execute(query):
                found[provider, account].append((user, start, int(cost)))
        return found

    async def _tell(self) -> None:
        news = self._fair.news()
        if not news:
            return
        named = {account.quota: account for account in self._accounts()}
        told = [
            json.dumps(_Told(account.provider, account.name, user, one.weight, one.units))
            for quota, people in news.items()
            if (account := named.get(quota)) is not None
            for user, one in people.items()
        ]
        for notice in _notices(told, MOST_TOLD):
            await self._database.tell(notice)

    def _heard(self, _node: str, text: str) -> None:
        if not self._fair.on or not text.startswith('{"fair"'):
            return
        try:
            told = [_read(*one) for one in json.loads(text)["fair"]]
        except (ValueError, TypeError, KeyError) as error:
            log.debug("a node of another version tells what this one does not understand: %s", error)
            return
        now = time.time()
        quotas = {(account.provider, account.name): account.quota for account in self._accounts()}
        for one in told:
            quota = quotas.get((one.provider, one.account))
            if quota is not None:
                self._fair.heard(quota, one.user, News(one.weight, one.units), now)


def _read(provider: str, account: str, user: str, weight: float | None, units: float) -> _Told:
    """Raises ValueError or TypeError: what is no number would meet a request that asks for its share."""
    if weight is not None and not 0 < float(weight) < math.inf:
        raise ValueError(f"{weight} is no weight")
    if not 0 <= float(units) < math.inf:
        raise ValueError(f"{units} can't have been taken")
    return _Told(provider, account, user, weight and float(weight), float(units))


def _notices(told: Iterable[str], most: int) -> Iterator[str]:
    """As few as hold it all, each of at most so many bytes (JSON is ASCII here)."""
    lines: list[str] = []
    room = most - len('{"fair": []}')
    size = 0
    for line in told:
        if lines and size + len(line) + 2 > room:
            yield '{"fair": [' + ", ".join(lines) + "]}"
            lines, size = [], 0
        lines.append(line)
        size += len(line) + 2
    if lines:
        yield '{"fair": [' + ", ".join(lines) + "]}"
