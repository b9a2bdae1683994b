"""Reserve, settle, cancel, expire, reload and crash in any order, against a plain list of what happened."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta, timezone

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aimux.limits.history import History
from aimux.limits.leases import LONGEST, Limits, Refusal
from aimux.limits.rules import (
    LIMITS,
    Grant,
    Holding,
    Key,
    Owner,
    Policy,
    Rule,
    Scope,
    Unit,
    Who,
    amount_of,
    value_of,
)
from aimux.limits.sums import Lease
from aimux.limits.windows import bounds

ZONE = timezone(timedelta(hours=2))
START = 1_792_000_000.0
PEOPLE = (
    Who("alice", "laptop", ("research",)),
    Who("alice", "ci", ("research",)),
    Who("alice", "laptop", ("interns",)),
    Who("bob", "laptop", ("research", "interns")),
    Who("carol"),
)
PROVIDERS = ("one", "two")
MODELS = ("big-1", "big-2", "small")
SCOPES = (Scope(), Scope(), Scope(provider="one"), Scope(model="big-*"), Scope("two", "/small|tiny/"))
OWNERS = (
    Owner("default"),
    Owner("user", "alice"),
    Owner("user", "carol"),
    Owner("group", "research"),
    Owner("member", "interns"),
    Owner("member", "research"),
    Owner("token", "ci"),
)
AMOUNTS = {
    Unit.REQUESTS: st.integers(0, 6),
    Unit.TOKENS: st.integers(0, 20_000),
    Unit.COST: st.integers(0, 100_000_000),
}


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    name = draw(st.sampled_from(sorted(LIMITS)))
    return Rule(draw(st.sampled_from(OWNERS)), name, draw(AMOUNTS[LIMITS[name].unit]), draw(st.sampled_from(SCOPES)))


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    places: dict[tuple[Owner, str, Scope], Rule] = {}
    for one in draw(st.lists(rules(), max_size=12)):
        places[one.owner, one.limit, one.scope] = one
    grants = [
        Grant(str(at), Owner("user", "alice"), name, draw(AMOUNTS[LIMITS[name].unit]), since, since + lasts)
        for at, name in enumerate(draw(st.lists(st.sampled_from(sorted(LIMITS)), max_size=2)))
        for since, lasts in [(START + draw(st.integers(-3600, 90_000)), draw(st.integers(60, 200_000)))]
    ]
    return Policy(tuple(places.values()), tuple(grants))


@dataclass
class Entry:
    """A request that was admitted: `keys` are the counters that it is in."""

    who: Who
    provider: str
    model: str
    time: float
    amounts: tuple[int, int, int]
    lease: Lease | None
    keys: set[Key] = field(default_factory=set)
    open: bool = True

    def concerns(self, key: Key) -> bool:
        whose = {Owner("user", self.who.user), Owner("token", self.who.token)}
        whose |= {Owner("group", group) for group in self.who.groups}
        return key.owner in whose and key.scope.covers(self.provider, self.model)


class Ledger(History):
    """Asked once for each budget that is new."""

    def __init__(self, log: list[Entry]) -> None:
        super().__init__()
        self._log = log

    def of(self, key: Key, start: float, *, shared: bool) -> tuple[int, int]:
        assert not shared
        end = bounds(LIMITS[key.limit].period, start, ZONE)[1]
        found = [e for e in self._log if not e.open and e.concerns(key) and start <= e.time < end]
        for entry in found:
            entry.keys.add(key)
        return sum(entry.amounts[LIMITS[key.limit].unit] for entry in found), 0


class Leases(RuleBasedStateMachine):
    @initialize(policy=policies())
    def begin(self, policy: Policy) -> None:
        self.now = START
        self.policy = policy
        self.log: list[Entry] = []
        self.limits = Limits(Policy(), ZONE)
        self.limits.adopt(policy, ZONE, self.now, Ledger(self.log))

    # --- the plain figures ----------------------------------------------------------------------------------------

    def holding(self, who: Who, provider: str, model: str) -> tuple[Holding, ...]:
        return self.policy.holdings(who, lambda scope: scope.covers(provider, model))

    def entries(self, key: Key) -> list[Entry]:
        """What the window of a counter holds."""
        period = LIMITS[key.limit].period
        held = [entry for entry in self.log if key in entry.keys]
        if not period:
            return [entry for entry in held if entry.open]
        start, end = (self.now - 60, self.now + 1) if period == "minute" else bounds(period, self.now, ZONE)
        return [entry for entry in held if (start < entry.time if period == "minute" else start <= entry.time < end)]

    def amount(self, holding: Holding) -> int:
        key, amount = holding
        return amount + sum(g.amount for g in self.policy.grants_for(key) if g.since <= self.now < g.until)

    def sum(self, key: Key) -> int:
        unit = LIMITS[key.limit].unit
        return sum(entry.amounts[unit] for entry in self.entries(key))

    def is_open(self, key: Key) -> bool:
        rolls = LIMITS[key.limit].period == "minute"
        among = [entry for entry in self.log if key in entry.keys] if rolls else self.entries(key)
        return any(entry.open for entry in among)

    def has_room(self, holding: Holding, need: int) -> bool:
        key, amount = holding.key, self.amount(holding)
        if self.sum(key) + need <= amount:
            return True
        return bool(LIMITS[key.limit].period) and not self.is_open(key) and self.sum(key) < amount

    # --- what happens ---------------------------------------------------------------------------------------------

    @rule(
        who=st.sampled_from(PEOPLE),
        provider=st.sampled_from(PROVIDERS),
        model=st.sampled_from(MODELS),
        size=st.integers(0, 40_000),
    )
    def reserve(self, who: Who, provider: str, model: str, size: int) -> None:
        holdings = self.holding(who, provider, model)
        habit = self.limits.habits.of(who.user, model)
        habit.foresee()
        tokens = habit.once + (size * habit.kilobyte >> 10)
        need = (1, tokens, tokens * habit.price)
        full = [held for held in holdings if not self.has_room(held, need[LIMITS[held.key.limit].unit])]
        plan = self.limits.plan(self.limits.terms(who), provider, model, self.now)
        answer = self.limits.reserve(plan, size, self.now)
        if isinstance(answer, Refusal):
            assert answer.standing.limit in {held.key.limit for held in full}
            assert answer.free_at > self.now
            return
        assert not full
        self.log.append(Entry(who, provider, model, self.now, need, answer, {held.key for held in holdings}))

    def one_of(self, data: st.DataObject) -> Entry:
        return data.draw(st.sampled_from([entry for entry in self.log if entry.lease is not None]))

    @precondition(lambda self: any(entry.lease is not None for entry in self.log))
    @rule(data=st.data(), tokens=st.integers(0, 30_000), cost=st.integers(0, 50_000_000), estimated=st.booleans())
    def settle(self, data: st.DataObject, tokens: int, cost: int, estimated: bool) -> None:
        entry = self.one_of(data)
        assert entry.lease is not None
        counted = self.limits.settle(entry.lease, tokens // 2, tokens - tokens // 2, cost, estimated=estimated)
        assert counted is entry.open, "exactly once"
        if counted:
            entry.open, entry.amounts = False, (1, tokens, cost)

    @precondition(lambda self: any(entry.lease is not None for entry in self.log))
    @rule(data=st.data(), how=st.sampled_from(("cancel", "estimate")))
    def end_otherwise(self, data: st.DataObject, how: str) -> None:
        entry = self.one_of(data)
        assert entry.lease is not None
        counted = getattr(self.limits, how)(entry.lease)
        assert counted is entry.open
        if counted:
            entry.open = False
            if how == "cancel":
                entry.amounts = (0, 0, 0)

    @rule(seconds=st.one_of(st.integers(0, 90), st.integers(0, 40 * 86400)))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def expire(self) -> None:
        overdue = [entry for entry in self.log if entry.open and self.now - entry.time >= LONGEST]
        assert self.limits.expire(self.now) == len(overdue)
        for entry in overdue:
            entry.open = False

    @rule(policy=policies())
    def reload(self, policy: Policy) -> None:
        self.policy = policy
        self.limits.adopt(policy, ZONE, self.now, Ledger(self.log))

    @rule()
    def crash(self) -> None:
        """The ledger has what was settled; what was under way is in nobody's books."""
        self.log = [entry for entry in self.log if not entry.open]
        for entry in self.log:
            entry.lease = None
            entry.keys = set()
        self.limits = Limits(Policy(), ZONE)
        self.limits.adopt(self.policy, ZONE, self.now, Ledger(self.log))

    # --- what always holds ----------------------------------------------------------------------------------------

    @invariant()
    def figures_agree(self) -> None:
        if not hasattr(self, "limits"):
            return
        for who in PEOPLE:
            told = {(s.owner, s.limit, s.scope): s for s in self.limits.standings(who, self.now)}
            for holding in self.policy.holdings(who):
                key = holding.key
                standing = told[key.owner, key.limit, str(key.scope)]
                assert standing.used == value_of(key.limit, self.sum(key))
                assert standing.amount == value_of(key.limit, self.amount(holding))
        assert len(self.limits) == sum(entry.open for entry in self.log)
        held = {holding.key for who in PEOPLE for holding in self.policy.holdings(who)}
        for budget in self.limits.budgets():
            if budget.key in held:  # marks go by what is settled, and the ledger's figures are compared with it
                settled = [entry for entry in self.entries(budget.key) if not entry.open]
                assert budget.used == sum(entry.amounts[budget.unit] for entry in settled)
                assert budget.open == self.is_open(budget.key)


TestLeases = Leases.TestCase
TestLeases.settings = settings(max_examples=60, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow])


def test_amounts_are_kept_as_they_are_written() -> None:
    for name, value in {"cost_per_day": 0.1, "tokens_per_week": 5, "concurrent_requests": 2}.items():
        assert value_of(name, amount_of(name, value)) == value
