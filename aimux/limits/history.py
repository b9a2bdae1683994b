"""What the ledger has seen of the windows that are open now: a restart forgets nothing of what was used."""

from __future__ import annotations

import json
from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from aimux.limits.rules import LIMITS, UNKNOWN_PRICES, Scope, Unit, Who, cost_at_unknown_prices
from aimux.limits.shares import Place
from aimux.limits.sums import place_of
from aimux.limits.windows import bounds
from aimux.metering.rows import NUMBER, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import tzinfo

    from sqlalchemy import ColumnElement

    from aimux.limits.rules import Key, Policy
    from aimux.metering.repricing import Repriced
    from aimux.metering.rows import Key as Sent
    from aimux.metering.rows import Values
    from aimux.storage import Database

PERIODS = ("day", "week", "month")
QUARTER = 900_000
"""Milliseconds: no time zone has a midnight within one."""


class Use(NamedTuple):
    """What was used under one key of the ledger since the start of a window."""

    user: str
    token: str
    """The one whose limits it has."""
    groups: tuple[str, ...]
    provider: str
    model: str
    """As it was asked for, which is what limits go by."""
    tokens: int
    cost: int


class Told(NamedTuple):
    """What of a budget's window the ledger has and nodes that share it say so of: all together, and this one."""

    used: int = 0
    own: int = 0


class History:
    """By the start of a window. It answers for windows that were open when it was read."""

    def __init__(
        self, uses: dict[float, list[Use]] | None = None, told: Mapping[Place, Told] = MappingProxyType({})
    ) -> None:
        self._uses = uses or {}
        self._told = told
        self.whole = False
        """Whether nothing is missing that the process has counted so far."""
        self._sums: dict[tuple[float, Unit, Scope], Counter[tuple[str, str]]] = {}

    def of(self, key: Key, start: float, *, shared: bool) -> tuple[int, int]:
        """Of a limit's owner since `start`, in the limit's unit: what this process counts, and what no node says of
        itself. `shared`: other nodes may use the same budget."""
        unit = LIMITS[key.limit].unit
        place = start, unit, key.scope
        if place not in self._sums:
            self._sums[place] = self._add_up(*place)
        used = self._sums[place][key.owner]
        if not shared:
            return used, 0
        told = self._told.get(place_of(key, start), Told())
        return told.own, max(0, used - told.used)

    def _add_up(self, start: float, unit: Unit, scope: Scope) -> Counter[tuple[str, str]]:
        """By owner, once for all of them: 10,000 users must not look through each other's."""
        sums: Counter[tuple[str, str]] = Counter()
        for use in self._uses.get(start, ()):
            if scope.covers(use.provider, use.model):
                amount = use.tokens if unit is Unit.TOKENS else use.cost
                sums["user", use.user] += amount
                sums["token", use.token] += amount
                for group in use.groups:
                    sums["group", group] += amount
        return sums


async def read(
    database: Database, zone: tzinfo, now: float, successors: Mapping[str, str], *, node: str | None = None
) -> History:
    """From the hours' sums: 0.1 s for a month of 200 people. `successors`: a policy's. `node`: this one, where others
    may use the same budgets.

    Raises StorageError.
    """
    from sqlalchemy import case, func, select

    from aimux.storage.schema.ledger import usage_hours as hours
    from aimux.storage.schema.ledger import usage_keys as keys
    from aimux.storage.schema.limits import limit_shares as shares

    starts = {bounds(period, now, zone)[0] for period in PERIODS}
    tokens = hours.c.input + hours.c.cache_read + hours.c.cache_write + hours.c.output
    sums = [
        func.sum(case((hours.c.start >= int(start * 1000), amount), else_=0))
        for start in sorted(starts)
        for amount in (tokens, costs_of_hours())
    ]
    model = case((keys.c.asked != "", keys.c.asked), else_=keys.c.model)
    query = (
        select(keys.c.user, keys.c.token, keys.c.groups, keys.c.provider, model, *sums)
        .join_from(hours, keys, keys.c.id == hours.c.key)
        .where(hours.c.start >= int(min(starts) * 1000))
        .group_by(keys.c.id)
    )
    told: dict[Place, Told] = {}
    async with database.read() as connection:
        rows = (await connection.execute(query)).all()
        if node is not None:
            own = func.sum(case((shares.c.node == node, shares.c.used), else_=0))
            pieces = select(shares.c.counter, shares.c.start, func.sum(shares.c.used), own)
            pieces = pieces.where(shares.c.start >= int(min(starts) * 1000)).group_by(shares.c.counter, shares.c.start)
            for counter, start, total, part in await connection.execute(pieces):
                told[Place(counter, start)] = Told(int(total), int(part))
    uses: dict[float, list[Use]] = {start: [] for start in starts}
    for row in rows:
        groups = row[2] if isinstance(row[2], list) else json.loads(row[2] or "[]")
        for at, start in enumerate(sorted(starts)):
            used, cost = (int(row[5 + 2 * at + which] or 0) for which in (0, 1))
            if used or cost:
                token = successors.get(row[1], row[1])
                uses[start].append(Use(row[0], token, tuple(groups), row[3], row[4], used, cost))
    return History(uses, told)


def costs_of_hours() -> ColumnElement[int]:
    """What a row of `usage_hours` counts as, in billionths of a dollar: without a price, at an assumed one."""
    from sqlalchemy import case

    from aimux.storage.schema.ledger import usage_hours as hours

    tokens_in = hours.c.input + hours.c.cache_read + hours.c.cache_write
    unknown = tokens_in * UNKNOWN_PRICES[0] + hours.c.output * UNKNOWN_PRICES[1]
    # Of an hour in which a price became known the sums do not say which tokens are the unpriced requests'.
    # An hour without a request has a price alone: that of one in an hour of another time zone.
    requests = case((hours.c.requests == 0, 1), else_=hours.c.requests)
    unpriced = case((hours.c.cost == 0, unknown), else_=unknown // requests * hours.c.unpriced)
    return case((hours.c.unpriced == 0, hours.c.cost), else_=hours.c.cost + unpriced)


def amounts(policy: Policy, zone: tzinfo, rows: Sequence[Values]) -> dict[Place, int]:
    """What requests add to budgets, as `read` will see it."""
    keys: dict[int, list[Key]] = {}
    starts: dict[tuple[str, int], float] = {}
    found: Counter[tuple[Key, float]] = Counter()
    for values in rows:
        row, number = Row(values), values[NUMBER]
        if number not in keys:
            keys[number] = _budgets(policy, row.key)
        for key in keys[number]:
            limit = LIMITS[key.limit]
            when = limit.period, row.at // QUARTER
            if when not in starts:
                starts[when] = bounds(limit.period, row.at / 1000, zone)[0]
            found[key, starts[when]] += row.tokens if limit.unit is Unit.TOKENS else cost_of(row)
    return {place_of(key, start): amount for (key, start), amount in found.items() if amount}


def cost_of(row: Row) -> int:
    """What a request counts as against limits of costs, in billionths of a dollar."""
    if row.cost is not None:
        return row.cost
    return cost_at_unknown_prices(row.tokens - row.output, row.output)


def changes(policy: Policy, zone: tzinfo, requests: Iterable[Repriced]) -> dict[Place, int]:
    """What changes in budgets because requests have a price now."""
    found: Counter[Place] = Counter()
    for one in requests:
        change = one.cost - cost_at_unknown_prices(one.tokens - one.output, one.output)
        for key in _budgets(policy, one.key):
            limit = LIMITS[key.limit]
            if limit.unit is Unit.COST:
                found[place_of(key, bounds(limit.period, one.at / 1000, zone)[0])] += change
    return {place: change for place, change in found.items() if change}


def _budgets(policy: Policy, key: Sent) -> list[Key]:
    """What holds for one who sends such requests, of calendar windows."""
    holdings = policy.holdings(
        Who(key.user, key.token, key.groups), lambda scope: scope.covers(key.provider, key.limited)
    )
    return [holding.key for holding in holdings if LIMITS[holding.key.limit].period in PERIODS]
