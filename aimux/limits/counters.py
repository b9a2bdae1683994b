"""The kinds of limits that have no calendar window, and what holds for a caller. `budget.py` has those that have one.

Each kind admits a request that probably fits. Where nothing of the owner's is under way, one that may not fit is
admitted too as long as anything is left: that is the one request by which a limit can be overrun, and without it the
last piece of a budget would be out of reach.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from aimux.limits.sums import COST, MINUTE, OPEN, TOKENS, Counter, place_of

if TYPE_CHECKING:
    from aimux.limits.rules import Key, Who
    from aimux.limits.shares import Claims
    from aimux.limits.sums import Lease, Plan, Sums

FRESH = 10.0
"""Seconds for which what is over a minute old may still lie in a rate that has room for it."""


class Terms:
    """What holds for a caller in one `epoch` of `Limits`. `free`: nothing is limited or forbidden, whatever it is for.

    `plans`: by provider and model.
    """

    __slots__ = ("epoch", "free", "plans", "who")

    def __init__(self, who: Who, epoch: int, *, free: bool) -> None:
        self.who = who
        self.epoch = epoch
        self.free = free
        self.plans: dict[tuple[str, str], Plan] = {}


class Rolling(Counter):
    """What has no calendar window. Of other nodes it counts what was so when they last told, a second ago or two."""

    __slots__ = ("_asked", "_elsewhere", "place")

    def __init__(self, key: Key, amount: int, sums: Sums, claims: Claims | None) -> None:
        super().__init__(key, amount, sums, claims)
        self.place = place_of(key, 0.0)
        self._asked = -1
        """The round in which the others were last asked about."""
        self._elsewhere = 0

    def own(self, now: float) -> int:
        """What counts of this node."""
        raise NotImplementedError

    def elsewhere(self) -> int:
        """What counts of the others."""
        claims = self._claims
        if claims is not None and self._asked != claims.round:
            self._asked = claims.round
            self._elsewhere = claims.gone(self.place)
        return self._elsewhere

    def took(self) -> None:
        if self._claims is not None:
            self._claims.rolling.add(self)

    def look(self, now: float, number: int) -> tuple[int, float | None]:
        return self.own(now) + self.elsewhere(), None


class Slots(Rolling):
    """What is open at once."""

    __slots__ = ()

    def __init__(self, key: Key, amount: int, sums: Sums, claims: Claims | None) -> None:
        super().__init__(key, amount, sums, claims)
        self.unit = OPEN

    def turn(self, now: float, number: int) -> None:
        self.ceiling = self.whole(now) - self.elsewhere()
        self.start, self.changes_at = now, self.grants_change(now, math.inf)

    def full(self, need: int, now: float, number: int) -> bool:
        return self.gone + self.elsewhere() >= self.whole(now)

    def free_at(self, need: int, now: float) -> float:
        return now + 1.0  # nobody knows when the first of them ends

    def own(self, now: float) -> int:
        return self.gone

    def settle_late(self, lease: Lease, more: int) -> None:
        self.gone_from += 1
        self.open_from += 1


class Rate(Rolling):
    """A rolling minute: exactly what was asked for in the last 60 seconds, with what it turned out to take.

    What is older is looked for once in FRESH, and before anybody is refused.
    """

    __slots__ = ()

    def __init__(self, key: Key, amount: int, sums: Sums, claims: Claims | None) -> None:
        super().__init__(key, amount, sums, claims)
        self.rolls = True
        if sums.recent is None:
            sums.recent = deque()

    def own(self, now: float) -> int:
        self.sums.prune(now)
        return self.gone

    def passes(self, lease: Lease) -> None:
        self.gone_from += self.of(lease.requests, lease.tokens, lease.cost)
        self.since = lease.number + 1

    def turn(self, now: float, number: int) -> None:
        self.sums.prune(now)
        self.ceiling = self.whole(now) - self.elsewhere()
        self.start, self.changes_at = now, self.grants_change(now, now + FRESH)

    def full(self, need: int, now: float, number: int) -> bool:
        used, whole = self.own(now) + self.elsewhere(), self.whole(now)
        return used + need > whole and (self.open or used >= whole)

    def free_at(self, need: int, now: float) -> float:
        whole = self.whole(now)
        if not whole:
            return now + MINUTE
        left = self.gone + self.elsewhere() + need - whole
        free = now + 1.0  # where only a request that is under way is in the way
        for lease in self.sums.recent or ():
            if left <= 0:
                break
            if self in lease.plan.rates:
                left -= self.of(lease.requests, lease.tokens, lease.cost)
                free = max(free, lease.time + MINUTE)
        # When something elsewhere was asked for is not known here: within a minute it is over.
        return free if left <= 0 or not self._elsewhere else now + MINUTE

    def settle_late(self, lease: Lease, more: int) -> None:
        if lease.number >= self.since:
            self.gone_from -= more
        self.open_from += 1  # those that are open still and none of the minute's any more count as such

    def cancelled(self, lease: Lease) -> None:
        if lease.number >= self.since and self.unit not in {TOKENS, COST}:
            self.gone_from += 1
