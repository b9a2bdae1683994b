"""Reports are right in whichever time zone days are counted, and where a clock was wrong."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from aimux.metering.calendar import Calendar
from aimux.metering.reports import Reports
from aimux.metering.usage import Filter
from aimux.storage import Database
from aimux.storage.engine import Connection

from .by_hand import ALL, AT, ledger_of, some, summed
from .support import DAY, HOUR, NOON, record, rows, settled, total

MONTH = 1_793_491_200_000
"""2026-11-01 00:00 UTC: in these zones a month is about to begin, or began some hours ago."""


def clock_at(monkeypatch: pytest.MonkeyPatch, at: int) -> list[int]:
    """The time of ledger and reports (milliseconds): its only item, which a test may change."""
    clock = [at]
    for name in ("reports", "ledger"):
        monkeypatch.setattr(f"aimux.metering.{name}.now", lambda: clock[0])
    return clock


async def test_conversations_miss_nothing_where_the_clock_moves_by_half_an_hour(
    database: Database, tmp_path: Path
) -> None:
    """What is folded at once ends in the middle of an hour that began at another minute."""
    calendar = Calendar(ZoneInfo("Australia/Lord_Howe"))
    ledger, reports = ledger_of(database, calendar, tmp_path / "l"), Reports(database, calendar, lambda: 1e9)
    moved = 1_791_041_400.0  # 2026-10-03 15:30 UTC: hours begin at :00 from then on, and began at :30 before
    for name, hours in (("before", -11), ("at the seam", 13.25), ("after", 30)):
        ledger.record(record(moved + hours * HOUR, conversation=name))
    await settled(ledger)
    await ledger.upkeep(int((moved + 3 * DAY) * 1000))
    found, _ = await reports.conversations(ALL, Filter(), 10)
    assert [item.name for _, item in found] == ["after", "at the seam", "before"]
    await ledger.close()


@pytest.mark.parametrize(
    "zones",
    [
        ["UTC", "Europe/Berlin", "America/New_York"],
        ["Asia/Kolkata", "UTC", "Asia/Kolkata"],
    ],
)
async def test_in_another_time_zone_everything_is_still_counted_once(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zones: list[str]
) -> None:
    """Also what comes late, around the end of a month."""
    calendar = Calendar(ZoneInfo(zones[0]))
    ledger, reports = ledger_of(database, calendar, tmp_path / "l"), Reports(database, calendar, lambda: 1e9)
    # At 45 minutes past, where hours are the same ones whether they begin at :00 or at :30.
    every = [record(MONTH / 1000 + (number - 100) * HOUR + 2700, user=f"user{number % 3}") for number in range(200)]
    late, every = every[7::9], [one for number, one in enumerate(every) if number % 9 != 7]
    told = list(every)
    for one in every:
        ledger.record(one)
    await settled(ledger)
    for hours in range(-60, 90, 6):
        at = MONTH + hours * 3_600_000
        monkeypatch.setattr("aimux.metering.reports.now", lambda at=at: at)
        monkeypatch.setattr("aimux.metering.ledger.now", lambda: MONTH + 50 * 86_400_000)  # all that comes is late
        calendar.move(ZoneInfo(zones[(hours + 60) // 12 % len(zones)]))
        await ledger.upkeep(at)
        told += late[:2]
        for one in late[:2]:
            ledger.record(one)
        del late[:2]
        await settled(ledger)
        assert (await reports.usage("user", ALL)).total == summed(told), hours
        assert (await reports.usage("model", ALL)).total == summed(told), hours
    calendar.move(ZoneInfo("America/New_York"))
    await ledger.upkeep(MONTH + 40 * 86_400_000)
    for table in ("usage_days", "usage_days_served", "usage_months", "usage_conversations"):
        assert (await total(database, table))["requests"] == len(told), table
    for bucket, name in (("day", calendar.date), ("month", lambda at: calendar.date(at)[:7])):
        found = await reports.series(None, ALL, Filter(), bucket)  # type: ignore[arg-type]
        of = {reports.label(bucket, start): item.requests for (start, _), item in found.items()}  # type: ignore[arg-type]
        assert of == Counter(name(int(one.time * 1000)) for one in told)
    await ledger.close()


async def test_what_comes_late_after_a_change_of_the_time_zone_does_not_end_the_upkeep(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is of an hour that lies across the end of what is folded already."""
    monkeypatch.setattr("aimux.metering.ledger.now", lambda: int(NOON * 1000) + 1_800_000)
    calendar = Calendar(ZoneInfo("UTC"))
    ledger = ledger_of(database, calendar, tmp_path / "l")
    ledger.record(record(NOON - HOUR))
    await settled(ledger)
    await ledger.upkeep(int(NOON * 1000) + 900_000)
    calendar.move(ZoneInfo("Asia/Kolkata"))
    ledger.record(record(NOON - 600))
    await settled(ledger)
    ledger.record(record(NOON + 600))
    await settled(ledger)
    await ledger.upkeep(int(NOON * 1000) + 48 * 3_600_000)
    for table in ("usage_days", "usage_conversations"):
        assert (await total(database, table))["requests"] == 3, table
    (said,) = [record.getMessage() for record in caplog.records if record.name == "aimux.metering.rollups"]
    assert "made anew for limits.time_zone Asia/Kolkata: they were for UTC; if this comes again and again" in said
    await ledger.close()


async def test_days_of_another_time_zone_answer_nothing(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a change of the time zone and the next upkeep, and where another node has another one."""
    monkeypatch.setattr("aimux.metering.reports.now", lambda: AT)
    calendar = Calendar(ZoneInfo("UTC"))
    ledger, reports = ledger_of(database, calendar, tmp_path / "l"), Reports(database, calendar, lambda: 1e9)
    records = some(random.Random(8), 120, 70)
    for one in records:
        ledger.record(one)
    await settled(ledger)
    await ledger.upkeep(AT)
    calendar.move(ZoneInfo("America/New_York"))
    for bucket, name in (("day", calendar.date), ("month", lambda at: calendar.date(at)[:7])):
        for by in (None, "model"):
            found = await reports.series(by, ALL, Filter(), bucket)  # type: ignore[arg-type]
            of: Counter[str] = Counter()
            for (start, _), item in found.items():
                of[reports.label(bucket, start)] += item.requests  # type: ignore[arg-type]
            assert of == Counter(name(int(one.time * 1000)) for one in records)
    await ledger.close()


@pytest.mark.parametrize("restarts", [False, True])
async def test_a_clock_that_was_ahead_takes_nothing_from_the_days(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarts: bool
) -> None:
    """Hours were folded by it that had not begun; what comes in them is late, though it comes at once."""
    clock = clock_at(monkeypatch, AT)
    calendar = Calendar(UTC)
    ledger, reports = ledger_of(database, calendar, tmp_path / "l"), Reports(database, calendar, lambda: 1e9)
    yesterday = NOON - 13 * HOUR
    for at in (yesterday, NOON):
        ledger.record(record(at))
    await settled(ledger)
    await ledger.upkeep(AT)
    clock[0] = int(yesterday * 1000)
    if restarts:
        await ledger.close()
        ledger = ledger_of(database, calendar, tmp_path / "l")
    ledger.record(record(yesterday))
    await settled(ledger)
    clock[0] = AT
    assert (await reports.usage("user", ALL)).total.requests == 3
    assert [item.requests for item in (await reports.usage("day", ALL)).items] == [2, 1]
    assert (await total(database, "usage_conversations"))["requests"] == 2
    await ledger.close()


async def test_a_clock_that_was_ahead_while_nobody_asked_takes_nothing_from_the_days(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    yesterday = NOON - 13 * HOUR
    clock = clock_at(monkeypatch, int(yesterday * 1000))
    calendar = Calendar(UTC)
    ledger, reports = ledger_of(database, calendar, tmp_path / "l"), Reports(database, calendar, lambda: 1e9)
    ledger.record(record(yesterday))
    await settled(ledger)
    await ledger.upkeep(AT)
    ledger.record(record(yesterday + 60))
    await settled(ledger)
    clock[0] = AT
    assert [item.requests for item in (await reports.usage("day", ALL)).items] == [2]
    assert (await total(database, "usage_conversations"))["requests"] == 2
    await ledger.close()


async def test_another_nodes_clock_that_is_ahead_takes_nothing_from_the_days(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It folds hours that have not ended by this node's clock, between two batches."""
    yesterday = NOON - 13 * HOUR
    clock = clock_at(monkeypatch, int(yesterday * 1000))
    calendar = Calendar(UTC)
    slow, fast = ledger_of(database, calendar, tmp_path / "slow"), ledger_of(database, calendar, tmp_path / "fast")

    async def others(_connection: Connection, _rows: Sequence[tuple[Any, ...]]) -> None:
        """Where there are other nodes, their share is written along."""

    slow.store.beside = others
    for minute in range(3):
        slow.record(record(yesterday + minute * 60))
        await settled(slow)
        await fast.upkeep(AT)
    clock[0] = AT
    assert [item.requests for item in (await Reports(database, calendar, lambda: 1e9).usage("day", ALL)).items] == [3]
    assert (await total(database, "usage_conversations"))["requests"] == 3
    for ledger in (slow, fast):
        await ledger.close()


async def test_a_clock_that_is_far_ahead_for_a_while_has_nothing_deleted(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, rounds = clock_at(monkeypatch, int(NOON * 1000)), asyncio.Semaphore(0)
    monkeypatch.setattr("aimux.metering.ledger.MAINTAIN_EVERY", 0.01)
    calendar = Calendar(UTC)
    ledger = ledger_of(database, calendar, tmp_path / "l")
    ledger.keep = 30 * DAY
    real = ledger.upkeep

    async def upkeep(*given: int) -> None:
        await real(*given)
        rounds.release()

    monkeypatch.setattr(ledger, "upkeep", upkeep)
    ledger.record(record(NOON - HOUR))
    await ledger.start()
    async with asyncio.timeout(10):
        await rounds.acquire()
        clock[0] += int(3650 * DAY * 1000)
        for _ in range(3):
            await rounds.acquire()
    assert (await total(database, "usage_days"))["requests"] == 1, "what is over by it is folded"
    assert len(await rows(database, "id")) == 1
    await real(clock[0])
    assert not await rows(database, "id")
    await ledger.close()
