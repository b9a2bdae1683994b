"""Room for a request: asked for before it goes up, settled once when it is over, however it ended.

In memory and without I/O: 1.5 µs for a user with four limits (bench/limits.py). Times are unix seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aimux.limits.counters import OPEN, Budget, Counter, Lease, Plan, Rolling, counter
from aimux.limits.habits import Habits
from aimux.limits.rules import value_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import tzinfo

    from aimux.limits.history import History
    from aimux.limits.rules import Holding, Key, Owner, Policy, Who
    from aimux.limits.shares import Claims

MAX_PLANS = 10_000
LONGEST = 6 * 3600.0
"""Seconds after which a lease that nobody has settled counts as one whose end was missed."""
NOTHING = (0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Standing:
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
        self._plans: dict[tuple[Who, str, str], Plan] = {}
        self._held: dict[Who, bool] = {}
        self.open: dict[str, Lease] = {}
        """Leases that are not settled yet, by the request's id."""
        self._number = 0

    def __len__(self) -> int:
        """Leases that are open."""
        return len(self.open)

    # --- one request ----------------------------------------------------------------------------------------------

    def reserve(self, request_id: str, who: Who, provider: str, model: str, size: int, now: float) -> Lease | Refusal:
        """Room for a request of `who` with `size` bytes of text: what it sends, and what such answers usually take.

        `request_id` is aimux's own: no other open lease has it.
        """
        plan = self._plans.get((who, provider, model))
        if plan is None:
            plan = self._plan(who, provider, model, now)
        number, tallies = self._number + 1, plan.tallies
        amounts: tuple[int, ...] = NOTHING
        if tallies:
            tokens, cost = plan.habit.expect(size)
            amounts = (1, tokens, cost, 1)
        if now < plan.start or now >= plan.end:
            plan.turn(now, number)
        for one in tallies:
            need = amounts[one.unit]
            if one.gone + need > one.ceiling and one.counter.full(need, now, number):
                return self._refusal(plan.counters, amounts, now)
        self._number = number
        lease = Lease(number, request_id, plan, size, now, amounts)
        for one in tallies:
            one.open += 1
            one.gone += amounts[one.unit]
        for noting in plan.noting:
            noting.took(lease)
        self.open[request_id] = lease
        return lease

    def settle(self, lease: Lease, tokens_in: int, tokens_out: int, cost: int, *, estimated: bool = False) -> bool:
        """The request is over and took so much (tokens of every kind, 1e-9 $). False: it was settled already.

        `estimated`: a part of it is not what an upstream told. It counts, and nothing is learned from it.
        """
        if lease.settled:
            return False
        lease.estimated = estimated
        self._close(lease, (1, tokens_in + tokens_out, cost, 0))
        if not estimated and tokens_in + tokens_out:
            lease.plan.habit.learn(lease.size, tokens_in, tokens_out, cost)
        return True

    def estimate(self, lease: Lease) -> bool:
        """The request is over, and nobody told what it took: what was reserved counts. False: settled already."""
        if lease.settled:
            return False
        lease.estimated = True
        self._close(lease, (*lease.amounts[:OPEN], 0))
        return True

    def cancel(self, lease: Lease) -> bool:
        """Nothing went up: everything is given back, the request itself too. False: it was settled already."""
        if lease.settled:
            return False
        self._close(lease, NOTHING)
        return True

    def expire(self, now: float) -> int:
        """Settle what has been open for LONGEST with an estimate. Returns how many there were: each is a bug."""
        count = 0
        while self.open:
            lease = next(iter(self.open.values()))
            if now - lease.time < LONGEST:
                break
            count += self.estimate(lease)
        return count

    def _close(self, lease: Lease, spent: tuple[int, ...]) -> None:
        lease.settled = True
        self.open.pop(lease.request_id, None)
        reserved, lease.amounts = lease.amounts, spent
        number, plan = lease.number, lease.plan
        for one in plan.tallies:
            if number < one.since:  # a request belongs to the window in which it began, as it does in the ledger
                one.counter.outlived()
                continue
            used = spent[one.unit]
            one.open -= 1
            one.gone += used - reserved[one.unit]
            one.used += used
            if one.used >= one.next_mark:
                self._tell(one.counter, lease.time)
        if self.claims is not None:
            for counter in plan.counters:
                if number >= counter.tally.since:
                    counter.settled()

    def add(self, who: Who, provider: str, model: str, at: float, tokens: int, cost: int, now: float) -> None:
        """Count a request that began `at` and had no lease here: its process has ended before the ledger had it."""
        plan = self._plans.get((who, provider, model)) or self._plan(who, provider, model, now)
        for one in plan.counters:
            if isinstance(one, Budget):
                one.add((1, tokens, cost)[one.tally.unit], at, now, self._number + 1)

    # --- epochs ---------------------------------------------------------------------------------------------------

    def adopt(self, policy: Policy, zone: tzinfo, now: float, past: History | None = None) -> None:
        """Begin another epoch. What is used and what is open stays; what is neither is forgotten.

        `past` is what the ledger has seen: budgets that are counted from now on begin with it.
        """
        if zone != self.zone:  # the windows are others
            self._counters = {key: one for key, one in self._counters.items() if not isinstance(one, Budget)}
        self.policy, self.zone, self._past = policy, zone, past
        self._plans.clear()
        self._held.clear()
        for key, one in list(self._counters.items()):
            if not one.tally.open and not one.look(now, self._number + 1)[0]:
                del self._counters[key]

    def _plan(self, who: Who, provider: str, model: str, now: float) -> Plan:
        holdings = self.policy.holdings(who, lambda scope: scope.covers(provider, model))
        plan = Plan(who, tuple(self._counter(holding, now) for holding in holdings), self.habits.of(who.user, model))
        if len(self._plans) >= MAX_PLANS:
            self._plans.clear()
        self._plans[who, provider, model] = plan
        return plan

    def _counter(self, holding: Holding, now: float) -> Counter:
        key, amount = holding
        found = self._counters.get(key)
        new = found is None
        if found is None:
            found = self._counters[key] = counter(key, amount, self.zone, self.claims)
        if isinstance(found, Budget):
            found.set(amount, self.policy.grants_for(key))
            if new and self._past is not None:
                found.look(now, self._number + 1)
                past = self._past.used(key, found.tally.start)
                if self.claims is None:
                    found.found(past)
                else:
                    found.base = max(0, past - self._past.counted(found.place))
                    found.claim(now)
        elif isinstance(found, Rolling):
            found.set(amount)
        return found

    # --- what is used ---------------------------------------------------------------------------------------------

    def budgets(self) -> Iterator[Budget]:
        """Those of calendar windows that this node has counted anything in."""
        for one in self._counters.values():
            if isinstance(one, Budget):
                yield one

    def standings(self, who: Who, now: float, *, provider: str | None = None, model: str = "") -> list[Standing]:
        """Every limit of `who`, or those that hold for a provider's model, with what is used of it."""
        holdings = self.policy.holdings(who, lambda scope: provider is None or scope.covers(provider, model))
        return [self._standing(self._counter(holding, now), now) for holding in holdings]

    def budgets_of(self, lease: Lease, now: float) -> list[Standing]:
        """The calendar windows that a lease counts against."""
        return [self._standing(one, now) for one in lease.plan.counters if isinstance(one, Budget)]

    def hold_for(self, who: Who) -> bool:
        """Whether anything is limited or forbidden to `who`, for whatever provider and model."""
        found = self._held.get(who)
        if found is None:
            if len(self._held) >= MAX_PLANS:
                self._held.clear()
            found = self._held[who] = bool(self.policy.holdings(who)) or self.policy.restricts(who)
        return found

    def _standing(self, one: Counter, now: float) -> Standing:
        used, resets_at = one.look(now, self._number + 1)
        amount = one.whole(now) if isinstance(one, Budget) else one.amount
        limit = one.key.limit
        scope = str(one.key.scope)
        return Standing(limit, one.key.owner, scope, value_of(limit, amount), value_of(limit, used), resets_at)

    def _refusal(self, counters: Iterable[Counter], amounts: tuple[int, ...], now: float) -> Refusal:
        number = self._number + 1
        free = [
            (one.free_at(amounts[one.tally.unit], now), one)
            for one in counters
            if one.full(amounts[one.tally.unit], now, number)
        ]
        free_at, last = max(free, key=lambda found: found[0])
        for _, one in free:  # of what was used up when the limit was set, nothing is settled any more
            self._tell(one, now)
        return Refusal(self._standing(last, now), free_at)

    def _tell(self, one: Counter, now: float) -> None:
        if self._on_mark is not None and isinstance(one, Budget) and (part := one.passed(now)) is not None:
            self._on_mark(Mark(self._standing(one, now), part))
