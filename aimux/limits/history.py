"""What the ledger has seen of the windows that are open now: a restart forgets nothing of what was used."""

from __future__ import annotations

import json
from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from aimux.limits.rules import LIMITS, Scope, Unit
from aimux.limits.shares import Place
from aimux.limits.windows import bounds

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import tzinfo

    from aimux.limits.rules import Key
    from aimux.storage import Database

PERIODS = ("day", "week", "month")


class _Use(NamedTuple):
    """What was used under one key of the ledger since the start of a window."""

    user: str
    token: str
    groups: tuple[str, ...]
    provider: str
    model: str
    tokens: int
    cost: int


class History:
    """By the start of a window. `used` answers for windows that were open when it was read."""

    def __init__(
        self, uses: dict[float, list[_Use]] | None = None, counted: Mapping[Place, int] = MappingProxyType({})
    ) -> None:
        self._uses = uses or {}
        self._counted = counted
        self._sums: dict[tuple[float, Unit, Scope], Counter[tuple[str, str]]] = {}

    def used(self, key: Key, start: float) -> int:
        """Of a limit's owner since `start`, in the limit's unit."""
        unit = LIMITS[key.limit].unit
        place = start, unit, key.scope
        if place not in self._sums:
            self._sums[place] = self._add_up(*place)
        return self._sums[place][key.owner]

    def counted(self, place: Place) -> int:
        """What nodes that share a budget had settled of it at that moment, all together."""
        return self._counted.get(place, 0)

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


async def read(database: Database, zone: tzinfo, now: float, *, shared: bool = False) -> History:
    """From the hours' sums: 0.1 s for a month of 200 people. `shared`: other nodes may use the same budgets.

    Raises StorageError.
    """
    from sqlalchemy import case, func, select

    from aimux.storage.schema.ledger import usage_hours as hours
    from aimux.storage.schema.ledger import usage_keys as keys
    from aimux.storage.schema.limits import limit_shares as shares

    starts = {bounds(period, now, zone)[0] for period in PERIODS}
    tokens = hours.c.input + hours.c.output + hours.c.cache_read + hours.c.cache_write
    sums = [
        func.sum(case((hours.c.start >= int(start * 1000), amount), else_=0))
        for start in sorted(starts)
        for amount in (tokens, hours.c.cost)
    ]
    query = (
        select(keys.c.user, keys.c.token, keys.c.groups, keys.c.provider, keys.c.model, *sums)
        .join_from(hours, keys, keys.c.id == hours.c.key)
        .where(hours.c.start >= int(min(starts) * 1000))
        .group_by(keys.c.id)
    )
    counted: dict[Place, int] = {}
    async with database.read() as connection:
        rows = (await connection.execute(query)).all()
        if shared:
            pieces = select(shares.c.counter, shares.c.start, func.sum(shares.c.used))
            pieces = pieces.where(shares.c.start >= int(min(starts) * 1000)).group_by(shares.c.counter, shares.c.start)
            counted = {Place(row[0], row[1]): int(row[2]) for row in await connection.execute(pieces)}
    uses: dict[float, list[_Use]] = {start: [] for start in starts}
    for row in rows:
        groups = row[2] if isinstance(row[2], list) else json.loads(row[2] or "[]")
        for at, start in enumerate(sorted(starts)):
            used, cost = (int(row[5 + 2 * at + which] or 0) for which in (0, 1))
            if used or cost:
                uses[start].append(_Use(row[0], row[1], tuple(groups), row[3], row[4], used, cost))
    return History(uses, counted)
