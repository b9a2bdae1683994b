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
ASK = -1
"""A ceiling that nothing is below: what other nodes use is counted, too."""
FRESH = 1.0
"""Seconds for which what is over a minute old may still count in a rate that has room for it."""
NEVER = 1 << 62
"""More than is used of anything; whole, as whole numbers are compared with fractions at length."""
OPEN = 3
"""What is open at once: a lease's last amount, beside those of `rules.Unit`."""
MARKS = (0.8, 0.95)
"""Of a limit: whoever is interested is told once a window when so much is used."""


def place_of(key: Key, start: float) -> Place:
    """Where nodes tell each other of a counter: of its window that began then (unix seconds), 0 where it has none."""
    return Place(json.dumps([*key.owner, key.limit, *key.scope]), int(start * 1000))


class Lease:
    """What one request holds of its plan's counters.

    `amounts`: requests, tokens, cost (1e-9 $) and what is open, as reserved and then as spent.
    """

    __slots__ = ("amounts", "estimated", "number", "plan", "request_id", "settled", "size", "time")

    def __init__(
        self,
        number: int,
        request_id: str,
        plan: Plan,
        size: int,
        time: float,
        amounts: tuple[int, ...],
    ) -> None:
        self.number = number
        self.request_id = request_id
        self.plan = plan
        self.size = size
        self.time = time
        self.amounts = amounts
        self.settled = False
        self.estimated = False
        """Settled with what was reserved or seen, because nobody told what it took."""


class Plan:
    """What a caller's requests to one model count against, in one epoch. Compared by identity.

    From `start` until `end` no window of its counters begins or ends: they need not be told what time it is.
    """

    __slots__ = ("counters", "end", "habit", "noting", "start", "tallies", "who")

    def __init__(self, who: Who, counters: tuple[Counter, ...], habit: Habit) -> None:
        self.who = who
        self.counters = counters
        self.tallies = tuple(one.tally for one in counters)
        self.noting = tuple(one for one in counters if one.notes)
        """Those that are told of each lease."""
        self.habit = habit
        self.start = self.end = -math.inf

    def turn(self, now: float, number: int) -> None:
        """Have the counters be in the windows that hold `now`. `number` is the next lease's."""
        self.start, self.end = -math.inf, math.inf
        for one in self.counters:
            one.turn(now, number)
            self.start = max(self.start, one.tally.start)
            self.end = min(self.end, one.tally.changes_at)


class Tally:
    """What a counter has counted. `used` is settled; `gone` is that and what `open` leases hold. A lease older than
    `since` is none of the window's.

    `Limits` does for all of them what each request needs, in one pass: without a call for each, and on one class, for
    the interpreter takes long where an attribute is now one class's and now another's. There is room as long as `gone`
    is not above `ceiling`; otherwise `counter.full` is asked. `start` and `changes_at` are the window's, and when
    something else of it changes.
    """

    __slots__ = ("ceiling", "changes_at", "counter", "gone", "next_mark", "open", "since", "start", "unit", "used")

    def __init__(self, counter: Counter, unit: int) -> None:
        self.counter = counter
        self.unit = unit
        """An index into a lease's amounts; a plain one: with an IntEnum's member it takes three times as long."""
        self.ceiling = self.used = self.gone = self.open = self.since = 0
        self.start = self.changes_at = -math.inf
        self.next_mark = NEVER
        """As long as less than this is used, `Budget.passed` would say nothing."""


class Counter:
    """One kind of limit: when there is room, and what of it rolls or ends."""

    __slots__ = ("_claims", "amount", "key", "notes", "tally")

    def __init__(self, key: Key, amount: int, claims: Claims | None = None) -> None:
        """`claims`: what other nodes say; None: this one is alone."""
        self._claims = claims
        self.key = key
        self.amount = amount
        self.tally = Tally(self, int(LIMITS[key.limit].unit))
        self.notes = claims is not None
        """`took` and `settled` have to be called."""

    @property
    def used(self) -> int:
        return self.tally.used

    @property
    def reserved(self) -> int:
        return self.tally.gone - self.tally.used

    def turn(self, now: float, number: int) -> None:
        """Be in the window that holds `now`. `number` is the next lease's."""
        raise NotImplementedError

    def full(self, need: int, now: float, number: int) -> bool:
        """Whether there is no room for `need`."""
        raise NotImplementedError

    def free_at(self, need: int, now: float) -> float:
        """When there will be, in unix seconds, if nothing else is asked for."""
        raise NotImplementedError

    def took(self, lease: Lease) -> None:
        """It counts here from now on."""
        raise NotImplementedError

    def settled(self) -> None:
        """One of the window's is over."""

    def outlived(self) -> None:
        """One is over that is older than `since`."""

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

    def set(self, amount: int) -> None:
        """Another epoch's amount."""
        self.amount = amount
        self.tally.changes_at = -math.inf

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

    def took(self, lease: Lease) -> None:
        if self._claims is not None:
            self._claims.rolling.add(self)

    def look(self, now: float, number: int) -> tuple[int, float | None]:
        return self.own(now) + self.elsewhere(now), None


class Slots(Rolling):
    """What is open at once."""

    __slots__ = ()

    def __init__(self, key: Key, amount: int, claims: Claims | None = None) -> None:
        super().__init__(key, amount, claims)
        self.tally.unit = OPEN

    def turn(self, now: float, number: int) -> None:
        self.tally.ceiling = self.amount if self._claims is None else ASK
        self.tally.changes_at = math.inf

    def full(self, need: int, now: float, number: int) -> bool:
        return self.tally.open + self.elsewhere(now) >= self.amount

    def free_at(self, need: int, now: float) -> float:
        return now + 1.0  # nobody knows when the first of them ends

    def own(self, now: float) -> int:
        return self.tally.open


class Rate(Rolling):
    """A rolling minute: exactly what was asked for in the last 60 seconds, with what it turned out to take.

    What is older is looked for once in FRESH, and before anybody is refused.
    """

    __slots__ = ("_recent",)

    def __init__(self, key: Key, amount: int, claims: Claims | None = None) -> None:
        super().__init__(key, amount, claims)
        self._recent: deque[Lease] = deque()
        self.notes = True

    def own(self, now: float) -> int:
        recent, tally = self._recent, self.tally
        # What lies ahead of the clock was put there by a clock that was wrong.
        while recent and not now - MINUTE < recent[0].time <= now:
            lease = recent.popleft()
            amount = lease.amounts[tally.unit]
            tally.since = lease.number + 1
            tally.gone -= amount
            if lease.settled:
                tally.used -= amount
        return tally.gone

    def turn(self, now: float, number: int) -> None:
        self.own(now)
        tally = self.tally
        tally.ceiling = self.amount if self._claims is None else ASK
        tally.start, tally.changes_at = now, now + FRESH

    def full(self, need: int, now: float, number: int) -> bool:
        used, tally = self.own(now) + self.elsewhere(now), self.tally
        return used + need > self.amount and (tally.open > 0 or used >= self.amount)

    def free_at(self, need: int, now: float) -> float:
        if not self.amount:
            return now + MINUTE
        left = self.tally.gone + self.elsewhere(now) + need - self.amount
        free = now + 1.0  # where only a request that is under way is in the way
        for lease in self._recent:
            if left <= 0:
                break
            left -= lease.amounts[self.tally.unit]
            free = max(free, lease.time + MINUTE)
        # When something elsewhere was asked for is not known here: within a minute it is over.
        return free if left <= 0 or not self._elsewhere else now + MINUTE

    def took(self, lease: Lease) -> None:
        self._recent.append(lease)
        if self._claims is not None:
            self._claims.rolling.add(self)

    def outlived(self) -> None:
        self.tally.open -= 1


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
        "end",
        "holds",
        "marked",
    )

    def __init__(self, key: Key, amount: int, zone: tzinfo, claims: Claims | None = None) -> None:
        super().__init__(key, amount, claims)
        self._zone = zone
        self._low = 0
        """From how much on that is gone the next piece is asked for at once."""
        self.holds = False
        self._grants: tuple[Grant, ...] = ()
        self.end = self._turned = -math.inf
        self.tally.next_mark = 0
        self.base = 0
        self.marked = 0
        """How many of MARKS were told."""

    def set(self, amount: int, grants: tuple[Grant, ...]) -> None:
        """Another epoch's amount and grants. What is used stays used."""
        self.amount, self._grants = amount, grants
        self.tally.changes_at = -math.inf
        self.tally.next_mark = 0

    @property
    def ceiling(self) -> int:
        return self.tally.ceiling

    def full(self, need: int, now: float, number: int) -> bool:
        self.turn(now, number)
        tally = self.tally
        total = tally.gone + need
        if total > tally.ceiling and self._claims is not None:
            if not self.holds:
                self.claim(now)
            self._claims.ask(self)
        return total > tally.ceiling and (tally.open > 0 or tally.used >= tally.ceiling)

    def turn(self, now: float, number: int) -> None:
        """Begin the window that holds `now`, and take the grants that hold now."""
        tally = self.tally
        if tally.start <= now < tally.changes_at:
            return
        fresh = not tally.start <= now < self.end
        if fresh:
            tally.start, self.end = bounds(LIMITS[self.key.limit].period, now, self._zone)
            tally.used = tally.gone = tally.open = self.base = self.marked = 0
            tally.since = number
        moments = [moment for grant in self._grants for moment in (grant.since, grant.until) if moment > now]
        tally.changes_at = min([self.end, *moments])
        self._turned = now
        tally.next_mark = 0
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
        self._hold(min(self.ceiling, self.tally.gone))

    def _piece(self, now: float) -> int:
        whole = self.whole(now) - self.base
        if self._claims is None:
            return whole
        return self._claims.share(self.place, whole, self.tally.gone, now)

    def _hold(self, ceiling: int) -> None:
        self.tally.ceiling = ceiling
        self._low = (self.tally.gone + ceiling) // 2

    @property
    def place(self) -> Place:
        return place_of(self.key, self.tally.start)

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

    def took(self, lease: Lease) -> None:
        assert self._claims is not None
        self._claims.touched.add(self)
        if self.tally.gone > self._low:
            self._claims.ask(self)

    def settled(self) -> None:
        assert self._claims is not None
        self._claims.touched.add(self)

    def look(self, now: float, number: int) -> tuple[int, float | None]:
        self.full(0, now, number)
        return self.tally.gone + self.elsewhere, self.end

    def add(self, amount: int, at: float, now: float, number: int) -> None:
        """Count what was used without a lease, by a request that began `at`."""
        self.full(0, now, number)
        if self.tally.start <= at < self.end:
            self.found(amount)
            if self._claims is not None:
                self._claims.touched.add(self)

    def found(self, amount: int) -> None:
        """So much was used without a lease."""
        self.tally.used += amount
        self.tally.gone += amount

    def passed(self, now: float) -> float | None:
        """The highest of MARKS that was reached since this was last asked, else None."""
        if self.marked == len(MARKS):
            self.tally.next_mark = NEVER
            return None
        whole, used = self.whole(now), self.tally.used + self.elsewhere
        mark = MARKS[self.marked] * whole
        if used < mark:
            # What others use may come near the mark at any time, and `now` may be before the latest grant.
            if self._claims is None and self._turned <= now < self.tally.changes_at:
                self.tally.next_mark = math.ceil(mark)
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
