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

from aimux.limits.rules import LIMITS
from aimux.limits.shares import Place

if TYPE_CHECKING:
    from aimux.limits.habits import Habit
    from aimux.limits.rules import Key, Who
    from aimux.limits.shares import Claims

MINUTE = 60.0
ASK = -1
"""A ceiling that nothing is below: what other nodes use is counted, too."""
FRESH = 10.0
"""Seconds for which what is over a minute old may still lie in a rate that has room for it."""
NEVER = 1 << 62
"""More than is used of anything; whole, as whole numbers are compared with fractions at length."""
OPEN = 3
"""What is open at once: a lease's last amount, beside those of `rules.Unit`."""


def place_of(key: Key, start: float) -> Place:
    """Where nodes tell each other of a counter: of its window that began then (unix seconds), 0 where it has none."""
    return Place(json.dumps([*key.owner, key.limit, *key.scope]), int(start * 1000))


class Lease:
    """What one request holds of its plan's counters.

    `amounts`: requests, tokens, cost (1e-9 $) and what is open, as reserved and then as spent.
    """

    __slots__ = ("amounts", "number", "plan", "request_id", "settled", "size", "time")

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


class Plan:
    """What holds for a caller's requests to one model, in one epoch. Compared by identity.

    From `start` until `end` no window of its counters begins or ends: they need not be told what time it is.
    """

    __slots__ = (
        "counters",
        "end",
        "free",
        "habit",
        "no_long_context",
        "no_overage",
        "noting",
        "recents",
        "start",
        "tallies",
        "who",
    )

    def __init__(
        self, who: Who, counters: tuple[Counter, ...], habit: Habit, *, no_overage: bool, no_long_context: bool
    ) -> None:
        self.who = who
        self.counters = counters
        self.tallies = tuple(one.tally for one in counters)
        self.recents = tuple(one.recent for one in counters if isinstance(one, Rate))
        """Each lease is put into these."""
        self.noting = tuple(one for one in counters if one.notes)
        """Those that have others told of each lease."""
        self.habit = habit
        self.no_overage = no_overage
        self.no_long_context = no_long_context
        self.free = not (counters or no_overage or no_long_context)
        """Nothing is limited or forbidden."""
        self.start = self.end = -math.inf

    def turn(self, now: float, number: int) -> None:
        """Have the counters be in the windows that hold `now`. `number` is the next lease's."""
        self.start, self.end = -math.inf, math.inf
        for one in self.counters:
            one.turn(now, number)
            self.start = max(self.start, one.tally.start)
            self.end = min(self.end, one.tally.changes_at)


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


class Tally:
    """What a counter has counted. `used` is settled; `gone` is that and what open leases hold, each of them something:
    so one is under way where the two differ. A lease older than `since` is none of the window's.

    `Limits` does for all of them what each request needs, in one pass: without a call for each, and on one class, for
    the interpreter takes long where an attribute is now one class's and now another's. There is room as long as `gone`
    is not above `ceiling`; otherwise `counter.full` is asked. `start` and `changes_at` are the window's, and when
    something else of it changes.
    """

    __slots__ = ("ceiling", "changes_at", "counter", "gone", "next_mark", "since", "start", "unit", "used")

    def __init__(self, counter: Counter, unit: int) -> None:
        self.counter = counter
        self.unit = unit
        """An index into a lease's amounts; a plain one: with an IntEnum's member it takes three times as long."""
        self.ceiling = self.used = self.gone = self.since = 0
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
        """`took` and `settled` have to be called, for other nodes to hear of it."""

    @property
    def used(self) -> int:
        return self.tally.used

    @property
    def reserved(self) -> int:
        return self.tally.gone - self.tally.used

    @property
    def open(self) -> bool:
        """Whether a lease is under way."""
        return self.tally.gone > self.tally.used

    def turn(self, now: float, number: int) -> None:
        """Be in the window that holds `now`. `number` is the next lease's."""
        raise NotImplementedError

    def full(self, need: int, now: float, number: int) -> bool:
        """Whether there is no room for `need`."""
        raise NotImplementedError

    def free_at(self, need: int, now: float) -> float:
        """When there will be, in unix seconds, if nothing else is asked for."""
        raise NotImplementedError

    def took(self) -> None:
        """A lease counts here from now on."""
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

    def took(self) -> None:
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
        return self.tally.gone + self.elsewhere(now) >= self.amount

    def free_at(self, need: int, now: float) -> float:
        return now + 1.0  # nobody knows when the first of them ends

    def own(self, now: float) -> int:
        return self.tally.gone


class Rate(Rolling):
    """A rolling minute: exactly what was asked for in the last 60 seconds, with what it turned out to take.

    What is older is looked for once in FRESH, and before anybody is refused.
    """

    __slots__ = ("_outlived", "recent")

    def __init__(self, key: Key, amount: int, claims: Claims | None = None) -> None:
        super().__init__(key, amount, claims)
        self.recent: deque[Lease] = deque()
        self._outlived = 0
        """Leases that are open still and are none of the minute's any more."""

    @property
    def open(self) -> bool:
        return self._outlived > 0 or self.tally.gone > self.tally.used

    def own(self, now: float) -> int:
        recent, tally = self.recent, self.tally
        # What lies ahead of the clock was put there by a clock that was wrong.
        while recent and not now - MINUTE < recent[0].time <= now:
            lease = recent.popleft()
            amount = lease.amounts[tally.unit]
            tally.since = lease.number + 1
            tally.gone -= amount
            if lease.settled:
                tally.used -= amount
            else:
                self._outlived += 1
        return tally.gone

    def turn(self, now: float, number: int) -> None:
        self.own(now)
        tally = self.tally
        tally.ceiling = self.amount if self._claims is None else ASK
        tally.start, tally.changes_at = now, now + FRESH

    def full(self, need: int, now: float, number: int) -> bool:
        used = self.own(now) + self.elsewhere(now)
        return used + need > self.amount and (self.open or used >= self.amount)

    def free_at(self, need: int, now: float) -> float:
        if not self.amount:
            return now + MINUTE
        left = self.tally.gone + self.elsewhere(now) + need - self.amount
        free = now + 1.0  # where only a request that is under way is in the way
        for lease in self.recent:
            if left <= 0:
                break
            left -= lease.amounts[self.tally.unit]
            free = max(free, lease.time + MINUTE)
        # When something elsewhere was asked for is not known here: within a minute it is over.
        return free if left <= 0 or not self._elsewhere else now + MINUTE

    def outlived(self) -> None:
        self._outlived -= 1
