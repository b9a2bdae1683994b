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

    from aimux.limits.habits import Habit
    from aimux.limits.rules import Grant, Key, Who
    from aimux.limits.shares import Claims

MINUTE = 60.0
MARKS = (0.8, 0.95)
"""Of a limit: whoever is interested is told once a window when so much is used."""


def place_of(key: Key, start: float) -> Place:
    """Where nodes tell each other of a counter: of its window that began then (unix seconds), 0 where it has none."""
    return Place(json.dumps([*key.owner, key.limit, *key.scope]), int(start * 1000))


class Lease:
    """What one request holds. `amounts`: requests, tokens and cost (1e-9 $), as reserved and then as spent."""

    __slots__ = ("amounts", "counters", "estimated", "habit", "number", "request_id", "settled", "size", "time", "who")

    def __init__(
        self,
        number: int,
        request_id: str,
        who: Who,
        habit: Habit,
        size: int,
        time: float,
        amounts: tuple[int, int, int],
        counters: tuple[Counter, ...],
    ) -> None:
        self.number = number
        self.request_id = request_id
        self.who = who
        self.habit = habit
        self.size = size
        self.time = time
        self.amounts = amounts
        self.counters = counters
        self.settled = False
        self.estimated = False
        """Settled with what was reserved or seen, because nobody told what it took."""


class Counter:
    """`used` is settled, `reserved` is held by `open` leases. A lease older than `since` is none of the window's."""

    __slots__ = ("_claims", "amount", "key", "next_mark", "open", "reserved", "since", "unit", "used")

    def __init__(self, key: Key, amount: int, claims: Claims | None = None) -> None:
        """`claims`: what other nodes say; None: this one is alone."""
        self._claims = claims
        self.key = key
        self.unit = int(LIMITS[key.limit].unit)  # a plain index: with an IntEnum's member it takes three times as long
        self.amount = amount
        self.used = 0
        self.reserved = 0
        self.open = 0
        self.since = 0
        self.next_mark = math.inf
        """As long as less than this is used, `Budget.passed` would say nothing."""

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


class Rolling(Counter):
    """What has no calendar window. Of other nodes it counts what was so when they last told, a second ago or two."""

    __slots__ = ("_asked", "_elsewhere", "place")

    def __init__(self, key: Key, amount: int, claims: Claims | None = None) -> None:
        super().__init__(key, amount, claims)
        self.place = place_of(key, 0.0)
        self._asked = -1
        """The round in which the others were last asked about."""
        self._elsewhere = 0

    def own(self, now: float) -> int:
        """What counts of this node."""
        raise NotImplementedError

    def elsewhere(self, now: float) -> int:
        """What counts of the others."""
        claims = self._claims
        if claims is not None and self._asked != claims.round:
            self._asked = claims.round
            self._elsewhere = claims.lately(self.place, now)
        return self._elsewhere

    def take(self, lease: Lease) -> None:
        self.open += 1
        if self._claims is not None:
            self._claims.rolling.add(self)

    def look(self, now: float, number: int) -> tuple[int, float | None]:
        return self.own(now) + self.elsewhere(now), None


class Slots(Rolling):
    """What is open at once."""

    __slots__ = ()

    def full(self, need: int, now: float, number: int) -> bool:
        return self.open + (self.elsewhere(now) if self._claims is not None else 0) >= self.amount

    def free_at(self, need: int, now: float) -> float:
        return now + 1.0  # nobody knows when the first of them ends

    def settle(self, lease: Lease, reserved: int, spent: int) -> None:
        self.open -= 1

    def own(self, now: float) -> int:
        return self.open


class Rate(Rolling):
    """A rolling minute: exactly what was asked for in the last 60 seconds, with what it turned out to take."""

    __slots__ = ("_recent",)

    def __init__(self, key: Key, amount: int, claims: Claims | None = None) -> None:
        super().__init__(key, amount, claims)
        self._recent: deque[Lease] = deque()

    def own(self, now: float) -> int:
        recent = self._recent
        # What lies ahead of the clock was put there by a clock that was wrong.
        while recent and not now - MINUTE < recent[0].time <= now:
            self.used -= recent.popleft().amounts[self.unit]
        return self.used

    def full(self, need: int, now: float, number: int) -> bool:
        used = self.own(now)
        if self._claims is not None:
            used += self.elsewhere(now)
        return used + need > self.amount and (self.open > 0 or used >= self.amount)

    def free_at(self, need: int, now: float) -> float:
        if not self.amount:
            return now + MINUTE
        left = self.used + self.elsewhere(now) + need - self.amount
        free = now + 1.0  # where only a request that is under way is in the way
        for lease in self._recent:
            if left <= 0:
                break
            left -= lease.amounts[self.unit]
            free = max(free, lease.time + MINUTE)
        # When something elsewhere was asked for is not known here: within a minute it is over.
        return free if left <= 0 or not self._elsewhere else now + MINUTE

    def take(self, lease: Lease) -> None:
        self.open += 1
        self._recent.append(lease)
        self.used += lease.amounts[self.unit]
        if self._claims is not None:
            self._claims.rolling.add(self)

    def settle(self, lease: Lease, reserved: int, spent: int) -> None:
        self.open -= 1
        recent = self._recent
        if recent and lease.number >= recent[0].number:
            self.used += spent - reserved


class Budget(Counter):
    """A calendar window. `ceiling` is what this node may use of it: all that is granted, or its piece of that, which it
    `holds` once it has taken one.

    `base` was used of it before any node counted it in the way that it is counted now.
    """

    __slots__ = (
        "_grants",
        "_low",
        "_turned",
        "_zone",
        "base",
        "ceiling",
        "changes_at",
        "end",
        "holds",
        "marked",
        "start",
    )

    def __init__(self, key: Key, amount: int, zone: tzinfo, claims: Claims | None = None) -> None:
        super().__init__(key, amount, claims)
        self._zone = zone
        self._low = 0
        """From how much on that is gone the next piece is asked for at once."""
        self.holds = False
        self._grants: tuple[Grant, ...] = ()
        self.start = self.end = self.changes_at = self._turned = -math.inf
        self.next_mark = 0.0
        self.base = 0
        self.ceiling = 0
        self.marked = 0
        """How many of MARKS were told."""

    def set(self, amount: int, grants: tuple[Grant, ...]) -> None:
        """Another epoch's amount and grants. What is used stays used."""
        self.amount, self._grants = amount, grants
        self.changes_at = -math.inf
        self.next_mark = 0.0

    def full(self, need: int, now: float, number: int) -> bool:
        if not self.start <= now < self.changes_at:
            self.turn(now, number)
        total = self.used + self.reserved + need
        if total > self.ceiling and self._claims is not None:
            if not self.holds:
                self.claim(now)
            self._claims.ask(self)
        ceiling = self.ceiling
        return total > ceiling and (self.open > 0 or self.used >= ceiling)

    def turn(self, now: float, number: int) -> None:
        """Begin the window that holds `now`, and take the grants that hold now."""
        fresh = not self.start <= now < self.end
        if fresh:
            self.start, self.end = bounds(LIMITS[self.key.limit].period, now, self._zone)
            self.used = self.reserved = self.open = self.base = self.marked = 0
            self.since = number
        moments = [moment for grant in self._grants for moment in (grant.since, grant.until) if moment > now]
        self.changes_at = min([self.end, *moments])
        self._turned = now
        self.next_mark = 0.0
        if fresh or self._claims is None:
            self.claim(now)
        else:
            self.offer(now)
            self._claims.ask(self)

    def claim(self, now: float) -> None:
        """Take all there is; or a first piece, by what was last heard of the others. The next one is the exchange's."""
        self.holds = True
        self._hold(self._piece(now))

    def offer(self, now: float) -> int:
        """What this node's next piece would be. If that is less than the one it has, the rest is returned now."""
        piece = self._piece(now)
        self._hold(min(self.ceiling, piece))
        return piece

    def take_piece(self, place: Place, piece: int, now: float) -> None:
        """It is this node's, for everybody to see."""
        if place == self.place:
            self.holds = True
            self._hold(min(piece, self._piece(now)))

    def release(self) -> None:
        """Return what is not gone: nobody asks for it."""
        self.holds = False
        self._hold(min(self.ceiling, self.used + self.reserved))

    def _piece(self, now: float) -> int:
        whole = self.whole(now) - self.base
        if self._claims is None:
            return whole
        return self._claims.share(self.place, whole, self.used + self.reserved, now)

    def _hold(self, ceiling: int) -> None:
        self.ceiling = ceiling
        self._low = (self.used + self.reserved + ceiling) // 2

    @property
    def place(self) -> Place:
        return place_of(self.key, self.start)

    @property
    def elsewhere(self) -> int:
        """What is gone of the window and not counted here, as far as is known."""
        return self.base + (self._claims.gone(self.place) if self._claims is not None else 0)

    def whole(self, now: float) -> int:
        """The amount with what is granted now."""
        if not self._grants:
            return self.amount
        return self.amount + sum(grant.amount for grant in self._grants if grant.since <= now < grant.until)

    def free_at(self, need: int, now: float) -> float:
        return self.end

    def take(self, lease: Lease) -> None:
        self.reserved += lease.amounts[self.unit]
        self.open += 1
        if self._claims is not None:
            self._claims.touched.add(self)
            if self.used + self.reserved > self._low:
                self._claims.ask(self)

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

    def add(self, amount: int, at: float, now: float, number: int) -> None:
        """Count what was used without a lease, by a request that began `at`."""
        self.full(0, now, number)
        if self.start <= at < self.end:
            self.used += amount
            if self._claims is not None:
                self._claims.touched.add(self)

    def passed(self, now: float) -> float | None:
        """The highest of MARKS that was reached since this was last asked, else None."""
        if self.marked == len(MARKS):
            self.next_mark = math.inf
            return None
        whole, used = self.whole(now), self.used + self.elsewhere
        mark = MARKS[self.marked] * whole
        if used < mark:
            # What others use may come near the mark at any time, and `now` may be before the latest grant.
            if self._claims is None and self._turned <= now < self.changes_at:
                self.next_mark = mark
            return None
        self.marked = sum(used >= mark * whole for mark in MARKS)
        return MARKS[self.marked - 1]


def counter(key: Key, amount: int, zone: tzinfo, claims: Claims | None) -> Counter:
    """The kind of counter that a limit needs."""
    period = LIMITS[key.limit].period
    if not period:
        return Slots(key, amount, claims)
    return Rate(key, amount, claims) if period == "minute" else Budget(key, amount, zone, claims)


__all__ = ["MARKS", "Budget", "Counter", "Rate", "Rolling", "Slots", "Unit", "counter"]
