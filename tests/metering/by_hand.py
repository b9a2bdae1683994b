"""Requests of some weeks, and what a report on them has to say."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

from aimux.metering.calendar import Calendar
from aimux.metering.flattener import Flattener
from aimux.metering.ledger import Ledger
from aimux.metering.record import RequestRecord
from aimux.metering.rows import part_of
from aimux.metering.spans import Span
from aimux.metering.usage import By, Filter, Item
from aimux.storage import Database

from .support import DAY, NOON, Cheap, record

AT = int(NOON * 1000)


ALL = Span(0)


USERS = [("ann", ("team",)), ("bob", ("team", "ops")), ("eve", ()), ("kim", ("Ops", "te_m"))]


def some(rng: random.Random, count: int, days: float) -> list[RequestRecord]:
    """Requests of the last days, the more of them the nearer."""
    made = []
    for _ in range(count):
        user, groups = rng.choice(USERS)
        at = NOON - rng.random() ** 2 * days * DAY
        sender = {"groups": groups, "token": f"t-{user}", "request_class": rng.choice(["main", "subagent", ""])}
        usage = {"model": rng.choice(["sonnet", "opus", "unknown"]), "input_tokens": rng.randrange(1000)}
        made.append(
            record(
                at,
                user=user,
                sender=sender,
                usage=usage,
                status=rng.choice([200, 200, 200, 429]),
                provider=rng.choice(["claude", "lab"]),
                account=rng.choice(["default", "two", ""]),
                conversation=rng.choice(["", f"{user}-{int(at / DAY)}", "shared"]),
            )
        )
    return made


def summed(records: Iterable[RequestRecord], name: str = "") -> Item:
    flattener = Flattener("node", Cheap())
    parts = [part_of(row).measures for row in flattener.rows(records)]
    return Item(name, *map(sum, zip(*parts, strict=True))) if parts else Item(name)


def account_of(one: RequestRecord) -> str:
    return f"{one.provider}/{one.account}" if one.account else ""


def names_of(one: RequestRecord, by: By, calendar: Calendar) -> list[str]:
    usage, at = one.usage, int(one.time * 1000)
    assert usage is not None
    if by == "group":
        return list(one.sender.groups) or [""]
    named = {
        "user": one.user,
        "token": one.sender.token,
        "model": usage.model,
        "account": account_of(one),
        "provider": one.provider,
        "class": one.sender.request_class,
        "client": one.sender.client,
        "day": calendar.date(at),
    }
    return [named[by]]


def passes(one: RequestRecord, span: Span, only: Filter) -> bool:
    usage = one.usage
    assert usage is not None
    wanted = {
        (only.user, one.user),
        (only.model, usage.model),
        (only.provider, one.provider),
        (only.account, account_of(one)),
        (only.request_class, one.sender.request_class),
        (only.token, one.sender.token),
    }
    fits = all(asked is None or asked == has for asked, has in wanted)
    shared = only.group is None or only.group in (one.sender.groups or ("",))
    return fits and shared and span.since <= int(one.time * 1000) < span.until


def by_hand(records: Iterable[RequestRecord], by: By, span: Span, only: Filter, calendar: Calendar) -> dict[str, Item]:
    found: dict[str, list[RequestRecord]] = {}
    for one in records:
        if passes(one, span, only):
            for name in names_of(one, by, calendar):
                if by != "group" or only.group in {None, name}:
                    found.setdefault(name, []).append(one)
    return {name: summed(those, name) for name, those in found.items()}


def ledger_of(database: Database, calendar: Calendar, folder: Path) -> Ledger:
    return Ledger(database, Flattener("node", Cheap()), calendar, folder, spill_limit=1 << 24, keep=1e9)
