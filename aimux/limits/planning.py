"""Plans from the ledger: its requests once more over accounts as somebody imagines them.

It takes seconds of arithmetic for a busy month. So a server does it in a process of its own
(`python -m aimux.limits.planning`), which reads the ledger by itself.
"""

# ruff: noqa: TC003 - pydantic evaluates the annotations

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from pydantic import BaseModel

from aimux.limits.plan import Asked, Window, replay
from aimux.limits.rules import NANO
from aimux.metering.apart import run_apart
from aimux.metering.calendar import Calendar
from aimux.metering.record import OWN_LOGIN
from aimux.metering.reports import Reports
from aimux.metering.spans import Span
from aimux.metering.windows import compare
from aimux.people import audit
from aimux.plugin.settings import AccountSettings
from aimux.storage import Database, StorageError

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from aimux.accounts.selection import Strategy
    from aimux.limits.plan import Plan

WINDOW = re.compile(r"([1-9][0-9]{0,3})([mhdw])")
"""A window's name says how long it is."""
_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
UNPRICED = 5_000_000
"""What a request counts whose price nobody knows: half a cent, in nanodollars."""
LONGEST = 300.0
"""Seconds for a plan."""
NICE = 10


class Question(BaseModel):
    """What is imagined. `since` in milliseconds, `keep` in seconds, `windows` in dollars; `counts` by provider."""

    url: str | None
    state_dir: Path
    zone: str
    keep: float
    since: int
    accounts: dict[str, dict[str, AccountSettings]]
    """The settings of every provider's accounts, and of those that the configuration names."""
    keys: dict[str, set[str]]
    """Which of them are API keys."""
    strategies: dict[str, str]
    counts: dict[str, int] = {}
    windows: dict[str, float] = {}
    fair_share: bool = False
    weights: dict[str, float] = {}
    """Of the fair shares of users for whom it is not 1."""


class PlannedAccount(BaseModel):
    """How an account would have fared."""

    account: str
    requests: int
    idle_hours: int
    hours: int
    times_full: int
    fullest: dict[str, float]


class Planned(BaseModel):
    """What would have happened at one provider. `held`: what a window of an account holds, in dollars."""

    provider: str
    requests: int
    waited: int
    waited_seconds: float
    refused: int
    not_their_share: int
    held: dict[str, float]
    accounts: list[PlannedAccount]


class Forecast(BaseModel):
    """`unknown`: providers whose subscriptions had requests, and of whose windows nothing is known yet."""

    plans: list[Planned]
    unknown: list[str]


async def planned(question: Question) -> Forecast:
    """The answer, worked out in another process. Raises OSError with what is wrong, and TimeoutError."""
    found = await run_apart(
        "aimux.limits.planning",
        question.model_dump(mode="json"),
        longest=LONGEST,
        needs=lambda name: name == "HOME" or name.startswith("PG"),  # what says how a database is reached
    )
    return Forecast.model_validate(found)


async def answer(question: Question) -> Forecast:
    """Here and now. Raises StorageError."""
    database = await Database.open(question.url, question.state_dir)
    try:
        reports = Reports(database, Calendar(ZoneInfo(question.zone)), lambda: question.keep)
        span = Span(question.since)
        plans, unknown = [], []
        for provider, settings in sorted(question.accounts.items()):
            requests = [
                Asked(
                    row.at / 1000,
                    row.user,
                    row.conversation or "",
                    row.model,
                    UNPRICED if row.cost is None else row.cost,
                    row.duration / 1000,
                )
                async for row in reports.replayed(provider, span)
            ]
            if not requests:
                continue
            windows = await _windows(database, reports, provider, span, question.windows)
            served = await _served(reports, provider, span, await _renamed(database, provider, settings))
            keys = question.keys[provider].intersection(served)
            chosen = _accounts(served, keys, settings, question.counts.get(provider))
            if served and keys.issuperset(served):  # another account would be a key, too
                keys, windows = set(chosen), []
            elif not windows:
                unknown.append(provider)
                continue
            strategy: Strategy = question.strategies[provider]  # type: ignore[assignment]
            fair, weights = question.fair_share, question.weights
            plan = replay(requests, chosen, windows, strategy=strategy, fair_share=fair, weights=weights, keys=keys)
            plans.append(_told(provider, plan, windows))
        return Forecast(plans=plans, unknown=unknown)
    finally:
        await database.close()


async def _windows(
    database: Database, reports: Reports, provider: str, span: Span, given: dict[str, float]
) -> list[Window]:
    """What a window of an account holds, in nanodollars: as it was given, or by how far the vendor's moved."""
    seen: dict[str, list[float]] = {}
    for one in await compare(database, reports, span):
        explained = one.moved - one.unexplained
        if one.provider == provider and one.metered is not None and one.metered.cost and explained > 0.01:
            seen.setdefault(one.window, []).append(one.metered.cost / explained)
    full = {name: sum(amounts) / len(amounts) for name, amounts in seen.items()}
    full |= {name: max(1.0, dollars * NANO) for name, dollars in given.items()}
    return [Window(name, _length(name), units) for name, units in full.items() if WINDOW.fullmatch(name)]


async def _renamed(database: Database, provider: str, there: Container[str]) -> dict[str, str]:
    """By former name: the name of the account now. A name that another account has by now is that one's."""
    names: dict[str, str] = {}
    for entry in await audit.of_action(database, "account.rename"):
        instance, _, before = entry.target.removeprefix("account:").partition("/")
        if instance == provider and entry.after is not None:
            names = {old: entry.after["name"] if name == before else name for old, name in names.items()}
            names[before] = entry.after["name"]
    return {old: name for old, name in names.items() if old not in there}


async def _served(reports: Reports, provider: str, span: Span, renamed: Mapping[str, str]) -> list[str]:
    """The names that the accounts that did have now."""
    prefix = f"{provider}/"
    items = (await reports.usage("account", span)).items
    names = {item.name.removeprefix(prefix) for item in items if item.name.startswith(prefix)} - {OWN_LOGIN}
    return sorted({renamed.get(name, name) for name in names})


def _accounts(
    served: list[str], keys: Container[str], settings: dict[str, AccountSettings], count: int | None
) -> dict[str, AccountSettings]:
    """Those that served, or so many of them and of new ones. API keys are the first to be left out: what is asked is
    how many subscriptions it takes."""
    names = served = sorted(served, key=lambda name: (name in keys, name))
    if count is not None:
        names = [*served[:count], *(f"new-{number}" for number in range(1, count - len(served) + 1))]
    return {name: settings.get(name, AccountSettings()) for name in names}


def _length(name: str) -> float:
    match = WINDOW.fullmatch(name)
    assert match is not None
    return int(match[1]) * float(_SECONDS[match[2]])


def _told(provider: str, plan: Plan, windows: list[Window]) -> Planned:
    return Planned(
        provider=provider,
        requests=plan.requests,
        waited=plan.waited,
        waited_seconds=round(plan.waited_seconds, 1),
        refused=plan.refused,
        not_their_share=plan.not_their_share,
        held={window.name: round(window.units / NANO, 4) for window in windows},
        accounts=[
            PlannedAccount(
                account=one.name,
                requests=one.requests,
                idle_hours=plan.hours - len(one.busy_hours),
                hours=plan.hours,
                times_full=one.cooled,
                fullest={name: round(used, 3) for name, used in one.fullest.items()},
            )
            for one in plan.accounts
        ],
    )


def main() -> None:
    """The answer to the question on stdin, as JSON."""
    os.nice(NICE)
    asked: Any = json.load(sys.stdin)
    try:
        found = asyncio.run(answer(Question.model_validate(asked)))
    except StorageError as error:
        sys.exit(str(error))
    sys.stdout.write(found.model_dump_json())


if __name__ == "__main__":
    main()
