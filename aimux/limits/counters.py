"""What is used of one limit by one owner. A counter outlives the configuration that its amount came from.

Each kind admits a request that probably fits. Where nothing of the owner's is under way, one that may not fit is
admitted too as long as anything is left: that is the one request by which a limit can be overrun, and without it the
last piece of a budget would be out of reach.
"""

from __future__ import annotations

import json
import math
from collections import deque
from typing import TYPE_CHECKING

from aimux.limits.rules import LIMITS, Unit
from aimux.limits.shares import Place
from aimux.limits.windows import bounds

if TYPE_CHECKING:
    from datetime import tzinfo

    from aimux.limits.leases import Lease
    from aimux.limits.rules import Grant, Key
    from aimux.limits.shares import Claims

MINUTE = 60.0
MARKS = (0.8, 0.95)
"""Of a limit: whoever is interested is told once a window when so much is used."""


class Counter:
    """`used` is settled, `reserved` is held by `open` leases. A lease older than `since` is none of the window's."""

    __slots__ = ("amount", "key", "open", "reserved", "since", "unit", "used")

    def __init__(self, key: Key, amount: int) -> None:
        self.key = key
        self.unit = LIMITS[key.limit].unit
        self.amount = amount
        self.used = 0
        self.reserved = 0
        self.open = 0
        self.since = 0

    def full(self, need: int, now: float, number: int) -> bool:
        """Whether there is no room for `need`. `number` is the next lease's."""
        raise NotImplementedError

    def free_at(self, need: int, now: float) -> float:
        """When there will be, in unix seconds, if nothing else is asked for."""
        raise NotImplementedError

    def take(self, lease: Lease) -> None:
        raise NotImplementedError

    def settle(self, lease: Lease, reserved: int, spent: int) -> None:
        """`lease` held `reserved` and has spent `spent`."""
        raise NotImplementedError

    def look(self, now: float, number: int) -> tuple[int, float | None]:
        """What is used and reserved now, and when the window ends (None: it rolls)."""
        raise NotImplementedError


class Slots(Counter):
    """What is open at once."""

    __slots__ = ()

    def full(self, need: int, now: float, number: int) -> bool:
        return self.open >= self.amount

    def free_at(self, need: int, now: float) -> float:
        return now + 1.0  # nobody knows when the first of them ends

    def take(self, lease: Lease) -> None:
        self.open += 1

    def settle(self, lease: Lease, reserved: int, spent: int) -> None:
        self.open -= 1

    def look(self, now: float, number: int) -> tuple[int, float | None]:
        return self.open, None


class Rate(Counter):
    """A rolling minute: exactly what was asked for in the last 60 seconds, with what it turned out to take."""

    __slots__ = ("_recent",)

    def __init__(self, key: Key, amount: int) -> None:
        super().__init__(key, amount)
        self._recent: deque[Lease] = deque()

    def full(self, need: int, now: float, number: int) -> bool:
        recent = self._recent
        # What lies ahead of the clock was put there by a clock that was wrong.
        while recent and not now - MINUTE < recent[0].time <= now:
            self.used -= recent.popleft().amounts[self.unit]
        used = self.used
        return used + need > self.amount and (self.open > 0 or used >= self.amount)

    def free_at(self, need: int, now: float) -> float:
        if not self.amount:
            return now + MINUTE
        left = self.used + need - self.amount
        free = now + 1.0  # where only a request that is under way is in the way
        for lease in self._recent:
            if left <= 0:
                break
            left -= lease.amounts[self.unit]
            free = max(free, lease.time + MINUTE)
        return free

    def take(self, lease: Lease) -> None:
        self._recent.append(lease)
        self.used += lease.amounts[self.unit]
        self.open += 1

    def settle(self, lease: Lease, reserved: int, spent: int) -> None:
        self.open -= 1
        recent = self._recent
        if recent and lease.number >= recent[0].number:
            self.used += spent - reserved

    def look(self, now: float, number: int) -> tuple[int, float | None]:
        self.full(0, now, number)
        return self.used, None


class Budget(Counter):
    """A calendar window. `ceiling` is what this node may use of it: all that is granted, or its share of that.

    `base` was used of it before any node counted it in the way that it is counted now.
    """

    __slots__ = ("_claimed", "_claims", "_grants", "_zone", "base", "ceiling", "changes_at", "end", "marked", "start")

    def __init__(self, key: Key, amount: int, zone: tzinfo, claims: Claims | None = None) -> None:
        """`claims` None: this node is alone."""
        super().__init__(key, amount)
        self._zone = zone
        self._claims = claims
        self._claimed = -1
        """The round in which the share was last worked out."""
        self._grants: tuple[Grant, ...] = ()
        self.start = self.end = self.changes_at = -math.inf
        self.base = 0
        self.ceiling = 0
        self.marked = 0
        """How many of MARKS were told."""

    def set(self, amount: int, grants: tuple[Grant, ...]) -> None:
        """Another epoch's amount and grants. What is used stays used."""
        self.amount, self._grants = amount, grants
        self.changes_at = -math.inf

    def full(self, need: int, now: float, number: int) -> bool:
        if not self.start <= now < self.changes_at:
            self.turn(now, number)
        total = self.used + self.reserved + need
        if total > self.ceiling and self._claims is not None and self._claimed != self._claims.round:
            self.claim(now)
        ceiling = self.ceiling
        return total > ceiling and (self.open > 0 or self.used >= ceiling)

    def turn(self, now: float, number: int) -> None:
        """Begin the window that holds `now`, and take the grants that hold now."""
        if not self.start <= now < self.end:
            self.start, self.end = bounds(LIMITS[self.key.limit].period, now, self._zone)
            self.used = self.reserved = self.open = self.base = self.marked = 0
            self.since = number
        moments = [moment for grant in self._grants for moment in (grant.since, grant.until) if moment > now]
        self.changes_at = min([self.end, *moments])
        self.claim(now)

    def claim(self, now: float) -> None:
        """Work out what this node may use."""
        whole = self.whole(now) - self.base
        if self._claims is not None:
            self._claimed = self._claims.round
            whole = self._claims.share(self.place, whole, self.used + self.reserved, now)
        self.ceiling = whole

    def release(self) -> None:
        """Return what is not gone: nobody asks for it."""
        self.ceiling = min(self.ceiling, self.used + self.reserved)

    @property
    def place(self) -> Place:
        return Place(json.dumps([*self.key.owner, self.key.limit, *self.key.scope]), int(self.start * 1000))

    @property
    def elsewhere(self) -> int:
        """What is gone of the window and not counted here, as far as is known."""
        return self.base + (self._claims.gone(self.place) if self._claims is not None else 0)

    def whole(self, now: float) -> int:
        """The amount with what is granted now."""
        return self.amount + sum(grant.amount for grant in self._grants if grant.since <= now < grant.until)

    def free_at(self, need: int, now: float) -> float:
        return self.end

    def take(self, lease: Lease) -> None:
        self.reserved += lease.amounts[self.unit]
        self.open += 1
        if self._claims is not None:
            self._claims.touched.add(self)

    def settle(self, lease: Lease, reserved: int, spent: int) -> None:
        # A request belongs to the window in which it began, as it does in the ledger.
        if lease.number >= self.since:
            self.open -= 1
            self.reserved -= reserved
            self.used += spent
            if self._claims is not None:
                self._claims.touched.add(self)

    def look(self, now: float, number: int) -> tuple[int, float | None]:
        self.full(0, now, number)
        return self.used + self.reserved + self.elsewhere, self.end

    def passed(self, now: float) -> float | None:
        """The highest of MARKS that was reached since this was last asked, else None."""
        whole = self.whole(now)
        used = self.used + self.elsewhere
        reached = sum(used >= mark * whole for mark in MARKS) if whole else len(MARKS)
        if reached <= self.marked:
            return None
        self.marked = reached
        return MARKS[reached - 1]


def counter(key: Key, amount: int, zone: tzinfo, claims: Claims | None) -> Counter:
    """The kind of counter that a limit needs."""
    period = LIMITS[key.limit].period
    if not period:
        return Slots(key, amount)
    return Rate(key, amount) if period == "minute" else Budget(key, amount, zone, claims)


__all__ = ["MARKS", "Budget", "Counter", "Rate", "Slots", "Unit", "counter"]
