"""Room for a request: asked for before it goes up, settled once when it is over, however it ended.

In memory and without I/O: 1 µs for a user with four limits (bench/limits.py). Times are unix seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from aimux.limits.budget import Budget
from aimux.limits.counters import Rate, Slots, Terms
from aimux.limits.habits import EACH, ENOUGH, Habit, Habits
from aimux.limits.rules import LIMITS, NANO
from aimux.limits.sums import CANCELLED, COST, NEVER, SETTLED, UNDER_WAY, Counter, Lease, Plan, Sums

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from datetime import tzinfo

    from aimux.limits.history import History
    from aimux.limits.rules import Holding, Key, Owner, Policy, Scope, Who
    from aimux.limits.shares import Claims

MAX_TERMS = 10_000
MAX_MODELS = 32
"""Whose plans are kept for a caller: their names are the caller's choice."""
LONGEST = 6 * 3600.0
"""Seconds after which a lease that nobody has settled counts as one whose end was missed."""


class Standing(NamedTuple):
    """How much of one limit is used. `amount` and `used` are as people write them: requests, tokens, dollars.

    `resets_at` None: it rolls, or counts what is open.
    """

    limit: str
    owner: Owner
    scope: str
    amount: float
    used: float
    resets_at: float | None

    @property
    def part(self) -> float:
        """Of the amount: 0 is unused, 1 is used up; a limit of 0 is used up from the start."""
        return self.used / self.amount if self.amount > 0 else 1.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no room: the limit that is free again last, and when."""

    standing: Standing
    free_at: float


@dataclass(frozen=True, slots=True)
class Mark:
    """A limit of which `part` (0.8, 0.95) is used."""

    standing: Standing
    part: float


class Limits:
    """Every counter of this node. `policy` is one epoch's; leases that are open while it changes keep what they hold.

    `on_mark` is told of each budget that comes near its end, once a window.
    """

    def __init__(
        self,
        policy: Policy,
        zone: tzinfo,
        *,
        claims: Claims | None = None,
        on_mark: Callable[[Mark], None] | None = None,
    ) -> None:
        """`claims`: of several nodes on the same budgets; None: there is one."""
        self.policy = policy
        self.zone = zone
        self.habits = Habits()
        self.claims = claims
        self._on_mark = on_mark
        self._past: History | None = None
        self._counters: dict[Key, Counter] = {}
        self._sums: dict[tuple[Owner, Scope], Sums] = {}
        self._round = 0
        """The one in which what other nodes told was last looked at."""
        self.epoch = 0
        """Terms of another one hold no longer."""
        self.adopted_at = -math.inf
        """When the policy came. A request that began before may be none of what its limits count."""
        self._terms: dict[Who, Terms] = {}
        self._groups: dict[str, frozenset[str]] = {}
        """Those that each user was last seen with."""
        self.on_moved: Callable[[], None] = lambda: None
        """Told of a user with other groups than before, or, where there are other nodes, whom this one has not seen
        yet: what limits for each member of his groups count of him, the ledger alone may know."""
        self._open: dict[int, Lease] = {}
        """Leases that are not settled yet, by number."""
        self._number = 0

    def __len__(self) -> int:
        """Leases that are open."""
        return len(self._open)

    # --- one request ----------------------------------------------------------------------------------------------

    def terms(self, who: Who) -> Terms:
        """What holds for a caller, until another epoch begins."""
        found = self._terms.get(who)
        if found is None:
            if len(self._terms) >= MAX_TERMS:
                self._terms.clear()
                self._groups.clear()
            groups, before = frozenset(who.groups), self._groups.get(who.user)
            if groups != before:
                self._groups[who.user] = groups
                if before is not None or self.claims is not None:
                    self.on_moved()
            free = not self.policy.holdings(who) and not self.policy.restricts(who)
            found = self._terms[who] = Terms(who, self.epoch, free=free)
        return found

    def plan(self, terms: Terms, provider: str, model: str, now: float) -> Plan:
        """What holds for his requests to a model."""
        found = terms.plans.get((provider, model))
        return self._plan(terms, provider, model, now) if found is None else found

    def reserve(self, plan: Plan, size: int, now: float, *, costless: bool = False) -> Lease | Refusal:
        """Room for a request with `size` bytes of text: what it sends, and what such answers usually take.

        `costless`: its tokens cost nothing, so that no budget of costs is in its way.
        """
        if self.claims is not None and self.claims.round != self._round:
            self._hear(self.claims.round)
        number = self._number + 1
        habit = plan.habit
        once = habit.once
        if not once:
            habit.foresee()
            once = habit.once
        tokens = once + (size * habit.kilobyte >> 10)
        cost = 0 if costless else tokens * habit.price
        for one in plan.sums:
            if not one.start <= now < one.end:
                one.turn(now, number)
            requests, all_tokens, all_cost = one.requests + 1, one.tokens + tokens, one.cost + cost
            if (
                all_tokens > one.most_tokens
                or all_cost > one.most_cost
                or requests > one.most_requests
                or requests - one.ended > one.most_open
            ) and one.full(tokens, cost, now, number):
                self._undo(one, plan, tokens, cost)
                return self._refusal(plan.counters, tokens, cost, now)
            one.requests, one.tokens, one.cost = requests, all_tokens, all_cost
        self._number = number
        lease = Lease()
        lease.number = number
        lease.plan = plan
        lease.size = size
        lease.time = now
        lease.tokens = tokens
        lease.cost = cost
        lease.state = UNDER_WAY
        for recent in plan.recents:
            recent.append(lease)
        if plan.noting:
            for noting in plan.noting:
                noting.took()
        self._open[number] = lease
        return lease

    def settle(self, lease: Lease, tokens_in: int, tokens_out: int, cost: int, *, estimated: bool = False) -> bool:
        """The request is over and took so much (tokens of every kind, 1e-9 $). False: it was settled already.

        `estimated`: a part of it is not what an upstream told. It counts, and nothing is learned from it.
        """
        if lease.state:
            return False
        lease.state = SETTLED
        number, plan = lease.number, lease.plan
        del self._open[number]
        tokens = tokens_in + tokens_out
        more_tokens, more_cost = tokens - lease.tokens, cost - lease.cost
        lease.tokens, lease.cost = tokens, cost
        for one in plan.sums:
            if number < one.since:  # a request belongs to the window in which room was found for it
                one.settle_late(lease, more_tokens, more_cost)
            else:
                one.ended += 1
                one.tokens += more_tokens
                one.cost += more_cost
                one.used_tokens += tokens
                one.used_cost += cost
            if one.used_tokens >= one.tokens_mark or one.used_cost >= one.cost_mark:
                self._mark(one, lease)
        if plan.noting:
            for noting in plan.noting:
                if number >= noting.since:
                    noting.settled()
        if tokens and not estimated:
            habit = plan.habit
            if habit.seen < ENOUGH or number % EACH == 0:
                habit.learn(lease.size, tokens_in, tokens_out, cost)
        return True

    def estimate(self, lease: Lease) -> bool:
        """The request is over, and nobody told what it took: what was reserved counts. False: settled already."""
        return self.settle(lease, lease.tokens, 0, lease.cost, estimated=True)

    def cancel(self, lease: Lease) -> bool:
        """Nothing went up: everything is given back, the request itself too. False: it was settled already."""
        if not self.settle(lease, 0, 0, 0, estimated=True):
            return False
        lease.state = CANCELLED
        for rate in lease.plan.rates:
            rate.cancelled(lease)
        return True

    def expire(self, now: float) -> int:
        """Settle what has been open for LONGEST with an estimate. Returns how many there were: each is a bug."""
        count = 0
        while self._open:
            lease = next(iter(self._open.values()))
            if now - lease.time < LONGEST:
                break
            count += self.estimate(lease)
        return count

    def _undo(self, refusing: Sums, plan: Plan, tokens: int, cost: int) -> None:
        """Give back what was taken of those before the one that refuses."""
        for one in plan.sums:
            if one is refusing:
                return
            one.requests -= 1
            one.tokens -= tokens
            one.cost -= cost

    def _mark(self, sums: Sums, lease: Lease) -> None:
        """Tell of the budgets that may have come near their end with this lease, which may be of a window or an epoch
        that is over."""
        now = max(lease.time, self.adopted_at)
        if any(one.epoch != self.epoch for one in sums.counters):
            for holding in self.policy.holdings(lease.plan.who):
                self._counter(holding, now)
        for one in sums.counters:
            if one.epoch == self.epoch and one.used >= one.next_mark:
                self._tell(one, now)
        if self.claims is None:  # else what the others use may come near a mark at any time
            sums.compare()
        if self._on_mark is None:
            sums.tokens_mark = sums.cost_mark = NEVER

    def _hear(self, this_round: int) -> None:
        """Have what the other nodes told be counted."""
        self._round = this_round
        for one in self._sums.values():
            one.changed()

    def add(
        self,
        who: Who,
        provider: str,
        model: str,
        at: float,
        tokens: int,
        cost: int,
        now: float,
        counted: Collection[Counter] = (),
    ) -> None:
        """Count a request that began `at`, but not in `counted`, which have it: its process has ended before the ledger
        had it, or it is older than a limit."""
        for one in self.plan(self.terms(who), provider, model, now).counters:
            if isinstance(one, Budget) and one not in counted:
                one.add(one.of(1, tokens, cost), at, now, self._number + 1)

    # --- epochs ---------------------------------------------------------------------------------------------------

    def adopt(
        self, policy: Policy, zone: tzinfo, now: float, past: History | None = None, *, recount: bool = False
    ) -> None:
        """Begin another epoch. What is used and what is open stays; what is neither is forgotten.

        `past` is what the ledger has seen: budgets that are counted from now on begin with it, and with `recount` all.
        """
        if zone != self.zone:  # the windows are others
            self._counters = {key: one for key, one in self._counters.items() if not isinstance(one, Budget)}
        self.policy, self.zone, self._past = policy, zone, past
        self.adopted_at = now
        self._begin()
        if recount and past is not None:
            for budget in self.budgets():
                budget.recount(past, now, self._number + 1)
        for key, one in list(self._counters.items()):
            if not one.open and not one.look(now, self._number + 1)[0]:
                del self._counters[key]
        counted = {one.sums for one in self._counters.values()}
        self._sums = {place: sums for place, sums in self._sums.items() if sums in counted}

    def _begin(self) -> None:
        self.epoch += 1
        self._terms.clear()

    def _plan(self, terms: Terms, provider: str, model: str, now: float) -> Plan:
        policy, who = self.policy, terms.who
        holdings = policy.holdings(who, lambda scope: scope.covers(provider, model))
        counters = tuple(self._counter(holding, now) for holding in holdings)
        self._hold(counters)
        no_overage = policy.forbids("overage", who, provider, model)
        no_long_context = policy.forbids("long_context", who, provider, model)
        # Nothing is learned of those for whom nothing holds: they would take the room of others' habits.
        habit = self.habits.of(who.user, model) if holdings or no_overage or no_long_context else Habit()
        plan = Plan(who, counters, habit, no_overage=no_overage, no_long_context=no_long_context)
        if len(terms.plans) >= MAX_MODELS:
            terms.plans.clear()
        terms.plans[provider, model] = plan
        return plan

    def _hold(self, counters: tuple[Counter, ...]) -> None:
        """Have these be the ones that hold of their sums. A user who has come to other groups has other limits: what
        was planned with those before holds no longer."""
        held: dict[Sums, tuple[Counter, ...]] = {}
        for one in counters:
            held[one.sums] = (*held.get(one.sums, ()), one)
        others = [sums for sums, own in held.items() if sums.counters != own]
        if any(sums.epoch == self.epoch for sums in others):
            self._begin()
        for sums in others:
            sums.hold(held[sums], self._number + 1)
        for sums in held:
            sums.epoch = self.epoch

    def _counter(self, holding: Holding, now: float) -> Counter:
        key, amount = holding
        found = self._counters.get(key)
        new = found is None
        if found is None:
            found = self._counters[key] = self._made(key, amount)
        if found.joined and found.epoch == self.epoch and found.amount != amount:
            self._begin()
        found.epoch = self.epoch
        found.set(amount, self.policy.grants_for(key))
        if new and self._past is not None and isinstance(found, Budget):
            found.recount(self._past, now, self._number + 1)
        return found

    def _made(self, key: Key, amount: int) -> Counter:
        period, place = LIMITS[key.limit].period, (key.owner, key.scope)
        sums = self._sums.get(place)
        if sums is None:
            sums = self._sums[place] = Sums()
        if not period:
            return Slots(key, amount, sums, self.claims)
        if period == "minute":
            return Rate(key, amount, sums, self.claims)
        return Budget(key, amount, self.zone, sums, self.claims)

    # --- what is used ---------------------------------------------------------------------------------------------

    def budgets(self) -> Iterator[Budget]:
        """Those of calendar windows that this node has counted anything in."""
        for one in self._counters.values():
            if isinstance(one, Budget):
                yield one

    def standings(self, who: Who, now: float, *, provider: str | None = None) -> list[Standing]:
        """Every limit of `who`, or those that hold for all models of a provider, with what is used of it."""
        holdings = self.policy.holdings(who, lambda scope: provider is None or scope.covers(provider, ""))
        return [self._standing(self._counter(holding, now), now) for holding in holdings]

    def budgets_of(self, plan: Plan, now: float) -> list[Standing]:
        """The calendar windows among what holds."""
        return [self._standing(one, now) for one in plan.budgets]

    def _standing(self, one: Counter, now: float) -> Standing:
        used, resets_at = one.look(now, self._number + 1)
        amount = one.whole(now)
        owner, limit, _ = one.key
        if one.unit == COST:
            return Standing(limit, owner, one.scope, amount / NANO, used / NANO, resets_at)
        return Standing(limit, owner, one.scope, amount, used, resets_at)

    def _refusal(self, counters: Iterable[Counter], tokens: int, cost: int, now: float) -> Refusal:
        number = self._number + 1
        needs = [(one.of(1, tokens, cost), one) for one in counters]
        free = [(one.free_at(need, now), one) for need, one in needs if one.full(need, now, number)]
        free_at, last = max(free, key=lambda found: found[0])
        for _, one in free:  # of what was used up when the limit was set, nothing is settled any more
            self._tell(one, now)
        return Refusal(self._standing(last, now), free_at)

    def _tell(self, one: Counter, now: float) -> None:
        if self._on_mark is None or not isinstance(one, Budget):
            return
        now = max(now, one.turned)  # never back into the window before
        if (part := one.passed(now)) is not None:
            self._on_mark(Mark(self._standing(one, now), part))
