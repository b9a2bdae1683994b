"""Leases of people in Berlin, at noon; and what their requests took."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from aimux.limits.keeper import LimitKeeper
from aimux.limits.leases import Limits, Refusal
from aimux.limits.rules import EVERYBODY, Grant, Policy, Rule, Scope, Who
from aimux.limits.sums import Lease
from aimux.metering.record import RequestRecord, Sender, new_id
from aimux.plugin import Usage

BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 11, 21, 12, tzinfo=BERLIN).timestamp()
MIDNIGHT = datetime(2026, 11, 22, tzinfo=BERLIN).timestamp()
ALICE = Who("alice", "laptop", ("research",))


def limits(*rules: Rule, grants: tuple[Grant, ...] = ()) -> Limits:
    return Limits(Policy(rules, grants), BERLIN)


def default(limit: str, amount: int, **scope: str) -> Rule:
    return Rule(EVERYBODY, limit, amount, Scope(**scope))


def strictest(policy: Policy, who: Who) -> dict[str, int]:
    """The smallest amount by limit name."""
    found: dict[str, int] = {}
    for holding in policy.holdings(who):
        found[holding.key.limit] = min(holding.amount, found.get(holding.key.limit, holding.amount))
    return found


def ask(book: Limits, who: Who = ALICE, *, now: float = NOON, size: int = 4000, model: str = "m") -> Lease | Refusal:
    return book.reserve(book.plan(book.terms(who), "claude", model, now), size, now)


def lease(book: Limits, who: Who = ALICE, *, now: float = NOON, size: int = 4000, model: str = "m") -> Lease:
    answer = ask(book, who, now=now, size=size, model=model)
    assert isinstance(answer, Lease)
    return answer


def refusal(book: Limits, who: Who = ALICE, *, now: float = NOON, size: int = 4000, model: str = "m") -> Refusal:
    answer = ask(book, who, now=now, size=size, model=model)
    assert isinstance(answer, Refusal)
    return answer


def use(book: Limits, tokens: int, who: Who = ALICE, *, now: float = NOON) -> None:
    book.settle(lease(book, who, now=now), tokens, 0, 0)


def used(keeper: LimitKeeper, who: Who = ALICE) -> dict[str, float]:
    return {f"{one.owner} {one.limit}": one.used for one in keeper.limits.standings(who, time.time())}


def record(at: float, tokens: int, *, user: str = "alice", model: str = "opus-5", served: str = "") -> RequestRecord:
    usage = Usage(served or model, tokens, tokens, tokens, tokens, 1, 1)
    sender = Sender(token="laptop", groups=("research", "all"))
    about: dict[str, Any] = {"user": user, "provider": "claude", "model": model, "sender": sender, "usage": usage}
    return RequestRecord(new_id(at), at, "POST", "/x", attempts=1, **about)
