"""Which limits there are, whose they are, and which of them hold for a caller. Pure: no clock, no storage, no pydantic.

Amounts are whole numbers: requests, tokens, and billionths of a US dollar (as in the ledger), so
that what was reserved is given back exactly.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

NANO = 1_000_000_000
"""Billionths in a dollar."""

UNKNOWN_PRICES = (5_000, 25_000)
"""Billionths of a dollar a token of a model whose price is unknown, in and out: for limits it is never free."""


class Unit(IntEnum):
    """What a limit counts: an index into a lease's amounts."""

    REQUESTS = 0
    TOKENS = 1
    """Of every kind, those read from a cache too."""
    COST = 2
    """Billionths of a US dollar."""


class Limit(NamedTuple):
    """One of the names that a configuration can set. `period` is `day`, `week` or `month`, which begin with the
    calendar's; `minute`, which rolls; or "" for what is open at once."""

    name: str
    unit: Unit
    period: str


LIMITS: Mapping[str, Limit] = {
    limit.name: limit
    for limit in (
        Limit("concurrent_requests", Unit.REQUESTS, ""),
        Limit("requests_per_minute", Unit.REQUESTS, "minute"),
        Limit("tokens_per_minute", Unit.TOKENS, "minute"),
        *(Limit(f"tokens_per_{period}", Unit.TOKENS, period) for period in ("day", "week", "month")),
        *(Limit(f"cost_per_{period}", Unit.COST, period) for period in ("day", "week", "month")),
    )
}


def amount_of(limit: str, value: float) -> int:
    """A limit's amount as it is counted; costs are given in dollars. Raises KeyError for a name that is none."""
    return round(value * NANO) if LIMITS[limit].unit is Unit.COST else int(value)


def cost_at_unknown_prices(tokens_in: int, tokens_out: int) -> int:
    """In billionths of a dollar."""
    return tokens_in * UNKNOWN_PRICES[0] + tokens_out * UNKNOWN_PRICES[1]


def value_of(limit: str, amount: int) -> float | int:
    """The same the other way."""
    return amount / NANO if LIMITS[limit].unit is Unit.COST else amount


def dollars(value: float) -> str:
    """`$1,234.50`; as many digits as it takes to tell less than a cent from nothing, but no more than are counted."""
    if value >= 0.01 or not value:
        return f"${value:,.2f}"
    digits = min(9, 1 - math.floor(math.log10(value)))
    return f"${value:.{digits}f}".rstrip("0").rstrip(".")


class Owner(NamedTuple):
    """Whose a limit is. `kind` is `user`, `group` (its members use it together), `member` (each of a group by himself),
    `token`, or `default` (each user by himself)."""

    kind: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind


EVERYBODY = Owner("default")


class Scope(NamedTuple):
    """What a limit holds for: "" is any. `model` is an exact name, `prefix*` or `/regular expression/`."""

    provider: str = ""
    model: str = ""

    def covers(self, provider: str, model: str) -> bool:
        return (not self.provider or self.provider == provider) and (not self.model or _matches(self.model, model))

    def __str__(self) -> str:
        return " ".join(filter(None, self))


ANYTHING = Scope()
_NEAREST = ("user", "token", "group", "member", "default")
"""Kinds of owners, the nearest to a caller first."""


def _matches(pattern: str, model: str) -> bool:
    if len(pattern) > 2 and pattern.startswith("/") and pattern.endswith("/"):
        return re.fullmatch(pattern[1:-1], model) is not None
    return model.startswith(pattern[:-1]) if pattern.endswith("*") else model == pattern


class Rule(NamedTuple):
    """One limit of one owner."""

    owner: Owner
    limit: str
    amount: int
    scope: Scope = ANYTHING


class Grant(NamedTuple):
    """More of a limit for a while, from `since` until `until` (unix seconds). Never changed once it is given."""

    id: str
    owner: Owner
    limit: str
    amount: int
    since: float
    until: float


class Forbidden(NamedTuple):
    """What an owner may not do: go on with paid extra usage (`overage`), or ask at such length that a token costs more
    (`long_context`)."""

    owner: Owner
    what: str
    scope: Scope = ANYTHING


class Who(NamedTuple):
    """A caller as limits know it. `token` "" and `user` "" are none and an anonymous one."""

    user: str
    token: str = ""
    groups: tuple[str, ...] = ()


ANYBODY = Who("")


class Key(NamedTuple):
    """What is counted together: an owner's use under one limit and scope. Owners are users, groups and tokens."""

    owner: Owner
    limit: str
    scope: Scope


class Holding(NamedTuple):
    """A limit that holds for somebody."""

    key: Key
    amount: int


@dataclass(frozen=True)
class Policy:
    """All limits and grants of one epoch. `weights` are those of users and groups that differ from 1; `successors` are
    the tokens that took others' places, with the limits that both have together, by the others' ids."""

    rules: tuple[Rule, ...] = ()
    grants: tuple[Grant, ...] = ()
    forbidden: frozenset[Forbidden] = frozenset()
    weights: Mapping[Owner, float] = field(default_factory=dict)
    successors: Mapping[str, str] = field(default_factory=dict)
    by_model: bool = field(init=False, compare=False, default=False)
    """Whether any of it is about single models."""
    _by_owner: Mapping[Owner, tuple[Rule, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_owner: dict[Owner, tuple[Rule, ...]] = {}
        for rule in self.rules:
            by_owner[rule.owner] = (*by_owner.get(rule.owner, ()), rule)
        object.__setattr__(self, "_by_owner", by_owner)
        scopes = [*(rule.scope for rule in self.rules), *(one.scope for one in self.forbidden)]
        by_model = any(scope.model for scope in scopes)
        object.__setattr__(self, "by_model", by_model)

    def holdings(self, who: Who, covers: Callable[[Scope], bool] = lambda _scope: True) -> tuple[Holding, ...]:
        """The limits that hold for `who`, all of them at once; those whose scope `covers` takes.

        A user's own limit stands in place of the strictest that the user has as a member of groups, and this in place
        of the default of the same name and scope: else nobody could have more than the default. What a group has
        together and what a token may use hold besides.
        """
        own = Owner("user", who.user)
        personal: dict[tuple[str, Scope], int] = {}
        for rule in self._of(EVERYBODY):
            personal[rule.limit, rule.scope] = rule.amount
        members: dict[tuple[str, Scope], int] = {}
        for rule in self._of(*(Owner("member", group) for group in who.groups)):
            place = rule.limit, rule.scope
            members[place] = min(rule.amount, members.get(place, rule.amount))
        personal |= members
        personal |= {(rule.limit, rule.scope): rule.amount for rule in self._of(own)}
        found = [Holding(Key(own, *place), amount) for place, amount in personal.items()]
        others = [Owner("group", group) for group in who.groups]
        if who.token:
            others.append(Owner("token", self.successors.get(who.token, who.token)))
        found += [Holding(Key(rule.owner, rule.limit, rule.scope), rule.amount) for rule in self._of(*others)]
        return tuple(holding for holding in found if covers(holding.key.scope))

    def set_by(self, who: Who, owner: Owner, limit: str, scope: str) -> Owner:
        """Whose rule the amount of a limit that holds for `who` comes from: as `holdings` chose it."""

        def rules(*owners: Owner) -> list[Rule]:
            return [rule for rule in self._of(*owners) if rule.limit == limit and str(rule.scope) == scope]

        if owner.kind != "user" or rules(owner):
            return owner
        shared = rules(*(Owner("member", group) for group in who.groups))
        return min(shared, key=lambda rule: rule.amount).owner if shared else EVERYBODY

    @property
    def has_budgets(self) -> bool:
        """Whether any of it is for a calendar window."""
        return any(LIMITS[rule.limit].period not in {"", "minute"} for rule in self.rules)

    def grants_for(self, key: Key) -> tuple[Grant, ...]:
        """What was granted on top of a limit; a grant is for its owner's limit of that name without a scope."""
        if key.scope != ANYTHING:
            return ()
        return tuple(grant for grant in self.grants if grant.owner == key.owner and grant.limit == key.limit)

    def forbids(self, what: str, who: Who, provider: str, model: str) -> bool:
        """Whether the user, a group of his, his token or the default forbids it."""
        if not self.forbidden:  # the usual case, three times for a request
            return False
        return any(
            one.what == what and self._concerns(one.owner, who) and one.scope.covers(provider, model)
            for one in self.forbidden
        )

    def restricts(self, who: Who) -> bool:
        """Whether anything at all is forbidden to somebody."""
        return any(self._concerns(one.owner, who) for one in self.forbidden)

    def restrictions(self, who: Who) -> list[Forbidden]:
        """What is forbidden to somebody: once for each scope, whoever forbids it besides."""
        found: dict[tuple[str, Scope], Forbidden] = {}
        for one in sorted(self.forbidden, key=lambda one: (_NEAREST.index(one.owner.kind), one.owner.name)):
            if self._concerns(one.owner, who):
                found.setdefault((one.what, one.scope), one)
        return sorted(found.values(), key=lambda one: (one.what, str(one.scope)))

    def weight(self, who: Who) -> float:
        """How large the fair share of a user is beside others': his own, else the largest of his groups', else 1."""
        own = self.weights.get(Owner("user", who.user))
        if own is not None:
            return own
        groups = [self.weights[owner] for group in who.groups if (owner := Owner("group", group)) in self.weights]
        return max(groups, default=1.0)

    def _concerns(self, owner: Owner, who: Who) -> bool:
        kind, name = owner
        if kind in {"group", "member"}:
            return name in who.groups
        if kind == "token":
            return name == self.successors.get(who.token, who.token)
        return kind == "default" or name == who.user

    def _of(self, *owners: Owner) -> Iterator[Rule]:
        for owner in owners:
            yield from self._by_owner.get(owner, ())
