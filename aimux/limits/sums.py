"""What is used of one owner's limits under one scope, of all of them together.

The sums only ever go on. Each counter remembers at which of their figures it was 0: so a request is added once, however
many limits it counts against, and compared with the nearest of them. A counter outlives the configuration that its
amount came from.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from aimux.limits.rules import LIMITS, Unit
from aimux.limits.shares import Place

if TYPE_CHECKING:
    from collections import deque

    from aimux.limits.habits import Habit
    from aimux.limits.rules import Grant, Key, Who
    from aimux.limits.shares import Claims

MINUTE = 60.0
CALENDAR = frozenset({"day", "week", "month"})
OPEN = 3
"""What is open at once, beside the members of `rules.Unit`."""
NEVER = 1 << 60
"""More than is used of anything; whole, as whole numbers are compared with fractions at length."""
REQUESTS, TOKENS, COST = int(Unit.REQUESTS), int(Unit.TOKENS), int(Unit.COST)
"""Plain ones: with an IntEnum's member a comparison takes three times as long."""


def place_of(key: Key, start: float) -> Place:
    """Where nodes tell each other of a counter: of its window that began then (unix seconds), 0 where it has none."""
    return Place(json.dumps([*key.owner, key.limit, *key.scope]), int(start * 1000))


UNDER_WAY, SETTLED, CANCELLED = 0, 1, 2


class Lease:
    """What one request holds of its plan's counters: `tokens` and `cost` (1e-9 $), as reserved and then as spent.

    Its maker sets what it has: to make one takes 1,000 instructions that way, and 3,100 with an `__init__`.
    """

    __slots__ = ("cost", "number", "plan", "size", "state", "time", "tokens")

    number: int
    plan: Plan
    size: int
    time: float
    tokens: int
    cost: int
    state: int
    """UNDER_WAY, SETTLED or CANCELLED."""

    @property
    def requests(self) -> int:
        """A request that is cancelled is given back."""
        return 0 if self.state == CANCELLED else 1


class Plan:
    """What holds for a caller's requests to one model, in one epoch. Compared by identity."""

    __slots__ = (
        "budgets",
        "counters",
        "free",
        "habit",
        "no_long_context",
        "no_overage",
        "noting",
        "rates",
        "recents",
        "sums",
        "told",
        "who",
    )

    def __init__(
        self, who: Who, counters: tuple[Counter, ...], habit: Habit, *, no_overage: bool, no_long_context: bool
    ) -> None:
        self.who = who
        self.counters = counters
        self.sums: tuple[Sums, ...] = tuple(dict.fromkeys(one.sums for one in counters))
        """What they count."""
        self.rates: tuple[Counter, ...] = tuple(one for one in counters if one.rolls)
        self.budgets: tuple[Counter, ...] = tuple(one for one in counters if LIMITS[one.key.limit].period in CALENDAR)
        """Those whose windows are the calendar's."""
        recents = [sums.recent for sums in dict.fromkeys(one.sums for one in self.rates)]
        self.recents = tuple(recent for recent in recents if recent is not None)
        """Each lease is put into these."""
        self.noting = tuple(one for one in counters if one.notes)
        """Those that have others told of each lease."""
        self.habit = habit
        self.no_overage = no_overage
        self.no_long_context = no_long_context
        self.free = not (counters or no_overage or no_long_context)
        """Nothing is limited or forbidden."""
        self.told: tuple[float, list[bytes] | None] = (-math.inf, None)
        """The header lines that tell of these limits (None: there is nothing to tell), and until when they do
        (`time.perf_counter`'s seconds)."""


class Counter:
    """One kind of limit: when there is room, and what of it rolls or ends. It counts what `sums` have beyond those of
    their figures at which it was 0.

    `start` and `changes_at` are the window's, and when something else of it changes. A lease that is older than `since`
    is none of the window's.
    """

    __slots__ = (
        "_claims",
        "_grants",
        "amount",
        "ceiling",
        "changes_at",
        "epoch",
        "gone_from",
        "joined",
        "key",
        "next_mark",
        "notes",
        "open_from",
        "rolls",
        "scope",
        "since",
        "start",
        "sums",
        "unit",
        "used_from",
    )

    def __init__(self, key: Key, amount: int, sums: Sums, claims: Claims | None) -> None:
        """`claims`: what other nodes say; None: this one is alone."""
        self._claims = claims
        self.key = key
        self.scope = str(key.scope)
        self.amount = amount
        self._grants: tuple[Grant, ...] = ()
        self.epoch = -1
        """The one in which its amount was set."""
        self.sums = sums
        self.joined = False
        """Whether what is asked for counts here: that its limit holds now."""
        self.unit = int(LIMITS[key.limit].unit)
        self.ceiling = self.since = self.gone_from = self.used_from = self.open_from = 0
        self.start = self.changes_at = -math.inf
        self.next_mark = NEVER
        """As long as less than this is used, `Budget.passed` would say nothing."""
        self.notes = claims is not None
        """`took` and `settled` have to be called, for other nodes to hear of it."""
        self.rolls = False
        """It counts a minute, and is told by `passes` and `cancelled`."""

    @property
    def gone(self) -> int:
        """What is used or reserved."""
        return (self.sums.gone(self.unit) if self.joined else 0) - self.gone_from

    @property
    def used(self) -> int:
        return (self.sums.used(self.unit) if self.joined else 0) - self.used_from

    @property
    def reserved(self) -> int:
        return self.gone - self.used

    @property
    def open(self) -> bool:
        """Whether a lease is under way."""
        return (self.sums.open if self.joined else 0) > self.open_from

    def of(self, requests: int, tokens: int, cost: int) -> int:
        """That of a request's amounts which counts here."""
        return tokens if self.unit == TOKENS else cost if self.unit == COST else requests

    def set(self, amount: int, grants: tuple[Grant, ...]) -> None:
        """Another epoch's amount and grants. What is used stays used."""
        self.amount, self._grants = amount, grants
        self.sums.changed()

    def whole(self, now: float) -> int:
        """The amount with what is granted now."""
        if not self._grants:
            return self.amount
        return self.amount + sum(grant.amount for grant in self._grants if grant.since <= now < grant.until)

    def grants_change(self, now: float, end: float) -> float:
        """When the next grant begins or ends after `now`, if that is before `end`; else `end`."""
        return min([end, *(moment for grant in self._grants for moment in (grant.since, grant.until) if moment > now)])

    def join(self) -> None:
        """Count what is asked for from now on."""
        sums, self.joined = self.sums, True
        self.gone_from += sums.gone(self.unit)
        self.used_from += sums.used(self.unit)
        self.open_from += sums.open

    def leave(self) -> None:
        """Count nothing more but what becomes of the leases that count here."""
        sums, self.joined = self.sums, False
        self.gone_from -= sums.gone(self.unit)
        self.used_from -= sums.used(self.unit)
        self.open_from -= sums.open

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

    def settle_late(self, lease: Lease, more: int) -> None:
        """One is over that its sums have not heard of; it took so much more than was reserved."""
        if lease.number >= self.since:
            self.gone_from -= more
            self.used_from -= self.of(0, lease.tokens, lease.cost)
            self.open_from += 1

    def passes(self, lease: Lease) -> None:
        """One is over a minute old."""

    def cancelled(self, lease: Lease) -> None:
        """One is over that was for nothing: the request itself is given back as well."""

    def look(self, now: float, number: int) -> tuple[int, float | None]:
        """What is used and reserved now, and when the window ends (None: it rolls)."""
        raise NotImplementedError


class Sums:
    """Of what was asked for, `requests`, `tokens` and `cost`: as reserved, and as spent once it is settled. `ended` of
    the requests are over, and `used_tokens` and `used_cost` are settled.

    `Limits` adds to them without a call for each. There is room as long as none is above its `most_`; otherwise `full`
    is asked. From `start` until `end` no window of the counters begins or ends. A lease that is older than `since` is
    not in all of them; as long as less than `tokens_mark` and `cost_mark` is used, no budget has anything to tell.
    """

    __slots__ = (
        "cost",
        "cost_mark",
        "counters",
        "end",
        "ended",
        "epoch",
        "most_cost",
        "most_open",
        "most_requests",
        "most_tokens",
        "recent",
        "requests",
        "since",
        "start",
        "tokens",
        "tokens_mark",
        "used_cost",
        "used_tokens",
    )

    def __init__(self) -> None:
        self.counters: tuple[Counter, ...] = ()
        self.epoch = -1
        """The one in which `hold` was called last."""
        self.recent: deque[Lease] | None = None
        """What was asked for within a minute, where any limit is a rate."""
        self.requests = self.ended = self.tokens = self.cost = self.used_tokens = self.used_cost = 0
        self.most_requests = self.most_open = self.most_tokens = self.most_cost = NEVER
        self.tokens_mark = self.cost_mark = NEVER
        self.since = 0
        self.start = self.end = -math.inf

    @property
    def open(self) -> int:
        """What is under way."""
        return self.requests - self.ended

    def gone(self, unit: int) -> int:
        """What is used or reserved, or open, by an index into a lease's amounts."""
        if unit == TOKENS:
            return self.tokens
        if unit == COST:
            return self.cost
        return self.open if unit == OPEN else self.requests

    def used(self, unit: int) -> int:
        """What is settled, of tokens or cost."""
        return self.used_tokens if unit == TOKENS else self.used_cost

    def hold(self, counters: tuple[Counter, ...], number: int) -> None:
        """Have these be the ones that hold from now on. `number` is the next lease's."""
        for one in self.counters:
            if one not in counters:
                one.leave()
        for one in counters:
            if one not in self.counters:
                one.join()
        self.counters = counters
        self.since = number
        self.changed()

    def changed(self) -> None:
        """Something of a counter has: have the next request look."""
        self.start = self.end = -math.inf
        self.tokens_mark = self.cost_mark = 0

    def turn(self, now: float, number: int) -> None:
        """Have the counters be in the windows that hold `now`. `number` is the next lease's."""
        for one in self.counters:
            one.turn(now, number)
        self.start = max([-math.inf, *(one.start for one in self.counters)])
        self.end = min([math.inf, *(one.changes_at for one in self.counters)])
        self.compare()

    def compare(self) -> None:
        """Work out up to where there is room, and where there is something to tell."""
        requests = opened = tokens = cost = tokens_mark = cost_mark = NEVER
        for one in self.counters:
            most, mark = one.gone_from + one.ceiling, one.used_from + one.next_mark
            if one.unit == TOKENS:
                tokens, tokens_mark = min(tokens, most), min(tokens_mark, mark)
            elif one.unit == COST:
                cost, cost_mark = min(cost, most), min(cost_mark, mark)
            elif one.unit == OPEN:
                opened = min(opened, most)
            else:
                requests = min(requests, most)
        self.most_requests, self.most_open, self.most_tokens, self.most_cost = requests, opened, tokens, cost
        self.tokens_mark, self.cost_mark = tokens_mark, cost_mark

    def full(self, tokens: int, cost: int, now: float, number: int) -> bool:
        """Whether there is no room for one request of so many tokens and so much cost in one of the counters."""
        found = False
        for one in self.counters:
            found = one.full(one.of(1, tokens, cost), now, number) or found
        if not found and self.end > now:  # not where one of them has just changed
            self.compare()
        return found

    def prune(self, now: float) -> None:
        """Take what is over a minute old out of the rates."""
        recent = self.recent
        # What lies far ahead was put there by a clock that was wrong; a little ahead, by who was looked at sooner.
        while recent and not now - MINUTE < recent[0].time <= now + MINUTE:
            lease = recent.popleft()
            for rate in lease.plan.rates:
                if rate.sums is self:
                    rate.passes(lease)
            self.since = max(self.since, lease.number + 1)

    def settle_late(self, lease: Lease, more_tokens: int, more_cost: int) -> None:
        """A lease that is older than `since` has been settled, for so much more than was reserved: each counter that
        it is in hears of it for itself."""
        for one in lease.plan.counters:
            if one.sums is self:
                one.settle_late(lease, one.of(0, more_tokens, more_cost))
        self.changed()
