"""Every request is in the ledger once, whatever happens to the database."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from aimux.metering.ledger import FAILURES
from aimux.storage import Database

from .conftest import Make
from .support import NOON, ONE, Flaky, record, settled, times, total


async def test_a_batch_that_is_written_twice_counts_once(database: Database, make: Make) -> None:
    """The commit's answer was lost: the ledger writes again, with more requests behind."""
    flaky = Flaky(database)
    ledger = make(flaky)
    flaky.commits_and_fails = True
    for _ in range(3):
        ledger.record(record())
    await ledger.flush()
    flaky.commits_and_fails = False
    ledger.record(record())
    await settled(ledger)
    assert await total(database) == times(4)
    await ledger.close()


async def test_what_came_while_the_database_was_away_is_written_when_it_is_back(database: Database, make: Make) -> None:
    flaky = Flaky(database)
    ledger = make(flaky)
    left: list[Any] = []
    ledger.on_left = left.extend
    flaky.away = True
    for _ in range(5):
        ledger.record(record())
        await ledger.flush()
    status = ledger.status()
    assert status is not None
    assert status["reason"] == "it is away"
    assert 0 < status["filled"] < 0.05
    assert status["waiting_bytes"] > 1000
    flaky.away = False
    ledger.record(record())
    await settled(ledger)
    assert await total(database) == times(6)
    assert not left, "limits have counted this process's own"
    await ledger.close()


async def test_a_database_that_hangs_has_what_it_is_given_on_the_disk_within_a_second(
    database: Database, make: Make, tmp_path: Path
) -> None:
    flaky = Flaky(database)
    ledger = make(flaky)
    flaky.go_on.clear()
    ledger.record(record())
    async with asyncio.timeout(1):
        await ledger.flush()
        ledger.record(record())
        await ledger.flush()
    (file,) = (tmp_path / "ledger").iterdir()
    assert len(file.read_bytes().splitlines()) == 2
    assert file.stat().st_mode & 0o777 == 0o600
    flaky.go_on.set()
    await settled(ledger)
    assert await total(database) == times(2)
    assert not list((tmp_path / "ledger").iterdir())
    await ledger.close()


async def test_that_a_database_hangs_is_told_before_it_has_failed(
    database: Database, make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With PostgreSQL frozen, that takes a minute."""
    caplog.set_level("INFO", "aimux.metering")
    flaky = Flaky(database)
    ledger = make(flaky)
    flaky.go_on.clear()
    ledger.record(record())
    await ledger.flush()
    status = ledger.status()
    assert status is not None
    assert "reason" not in status
    monkeypatch.setattr("aimux.metering.ledger.SILENT", 0.0)
    for _ in range(3):
        await ledger.flush()
    status = ledger.status()
    assert status is not None
    assert status["reason"] == "it has not answered for some seconds"
    flaky.go_on.set()
    await settled(ledger)
    assert ledger.status() is None
    assert [log.message for log in caplog.records if "wait" in log.message] == [
        "requests wait for the database: it has not answered for some seconds",
        "the database takes requests again; 0 bytes of them wait",
    ]
    await ledger.close()


async def test_what_a_slow_database_has_taken_is_not_given_to_it_again(database: Database, make: Make) -> None:
    """It would refuse the rows that it has: for each batch an error in PostgreSQL's log."""
    flaky = Flaky(database)
    ledger = make(flaky)
    ledger.record(record())
    await settled(ledger)
    for _ in range(2):
        flaky.go_on.clear()
        ledger.record(record())
        await ledger.flush()
        ledger.record(record())
        await ledger.flush()
        flaky.go_on.set()
        await settled(ledger)
    assert await total(database) == times(5)
    assert flaky.tries == flaky.writes
    await ledger.close()


async def test_a_stop_without_a_database_leaves_all_to_the_next_start(
    database: Database, make: Make, tmp_path: Path
) -> None:
    flaky = Flaky(database)
    first = make(flaky)
    flaky.away = True
    for number in range(4):
        first.record(record())
        if number == 1:
            await first.flush()
    await first.close()
    second = make()
    await second.start()
    async with asyncio.timeout(10):
        while await total(database) != times(4):
            await asyncio.sleep(0.05)
    await second.close()
    assert not list((tmp_path / "ledger").iterdir())


async def test_what_waited_for_long_is_written_in_batches(
    database: Database, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aimux.metering.ledger.RETRY", 0.0)
    flaky = Flaky(database)
    ledger = make(flaky)
    flaky.away = True
    for _ in range(200):
        ledger.record(record())
    for _ in range(2 * FAILURES):
        await ledger.flush()
    flaky.away = False
    await settled(ledger)
    assert await total(database) == times(200)
    assert flaky.writes == 1
    await ledger.close()


async def test_one_row_that_the_database_never_takes_stays_behind_alone(
    database: Database, make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = make()
    monkeypatch.setattr("aimux.metering.ledger.RETRY", 0.0)
    bad = record(bytes_in=1 << 70)  # no column holds it
    for one in (record(), bad, record()):
        ledger.record(one)
    async with asyncio.timeout(20):
        for _ in range(FAILURES + 2):
            await ledger.flush()
        while (told := ledger.status()) is None or told["waiting_bytes"]:
            await ledger.flush()
            await asyncio.sleep(0.01)  # while the database has a batch, flush waits for nothing
    assert await total(database) == times(2)
    assert bad.id in caplog.text
    status = ledger.status()
    assert status is not None
    assert (status["lost_requests"], status["waiting_bytes"]) == (1, 0)
    await ledger.close()


async def test_no_row_is_given_up_for_a_disk_that_is_full(
    database: Database, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be read all the while, so that looking tells nothing."""
    flaky = Flaky(database)
    ledger = make(flaky)
    monkeypatch.setattr("aimux.metering.ledger.RETRY", 0.0)
    flaky.full = True
    for _ in range(FAILURES + 3):
        ledger.record(record())
        await ledger.flush()
    status = ledger.status()
    assert status is not None
    assert (status["lost_requests"], status["reason"]) == (0, "its disk is full")
    flaky.full = False
    await settled(ledger)
    assert await total(database) == times(FAILURES + 3)
    await ledger.close()


async def test_a_ledger_without_requests_has_nothing_to_keep_up(database: Database, make: Make) -> None:
    ledger = make()
    async with asyncio.timeout(10):
        await ledger.upkeep(int(NOON * 1000))
    assert await total(database) == {}
    await ledger.close()


async def test_no_row_is_given_up_for_a_schema_that_is_another_one(
    database: Database, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a newer node has migrated the database. It can be read, too."""
    ledger = make()
    monkeypatch.setattr("aimux.metering.ledger.RETRY", 0.0)
    ledger.record(record())
    await settled(ledger)
    async with database.write() as connection:
        await connection.exec_driver_sql("ALTER TABLE requests RENAME COLUMN ttfb TO until_first")
    failures = 0
    async with asyncio.timeout(20):
        while failures < FAILURES + 3:
            ledger.record(record())
            await ledger.rest()
            failures += 1
    status = ledger.status()
    assert status is not None
    assert status["lost_requests"] == 0
    assert "until_first" in status["reason"] or "ttfb" in status["reason"]
    async with database.write() as connection:
        await connection.exec_driver_sql("ALTER TABLE requests RENAME COLUMN until_first TO ttfb")
    await settled(ledger)
    assert await total(database) == times(1 + failures)
    await ledger.close()


async def test_whoever_leaves_while_rows_are_made_takes_no_request_along(
    database: Database, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who reads usage has the ledger write first, and may be cancelled at any moment: a stop does that."""
    monkeypatch.setattr("aimux.metering.ledger.AT_ONCE", 1)
    ledger, begun = make(), threading.Event()
    make_rows = ledger._rows

    def slowly(batch: Any) -> Any:
        begun.set()
        return make_rows(batch)

    monkeypatch.setattr(ledger, "_rows", slowly)
    for number in range(3):
        ledger.record(record(NOON + number))
    reader = asyncio.create_task(ledger.flush())
    await asyncio.to_thread(begun.wait)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    ledger.record(record(NOON + 3))
    await settled(ledger)
    assert await total(database) == times(4)
    await ledger.close()


async def test_what_is_on_the_disk_twice_is_written_once_and_at_once(database: Database, make: Make) -> None:
    """Whoever was cancelled while it was put there does not know that it is."""
    flaky = Flaky(database)
    flaky.away = True
    ledger = make(flaky)
    for number in range(3):
        ledger.record(record(NOON + number))
    await ledger.flush()
    lines = [path.read_bytes() for path in ledger._spill._folder.iterdir()]
    await ledger.close()
    (left,) = ledger._spill._folder.iterdir()
    left.write_bytes(lines[0] * 2)
    told: list[Any] = []
    after = make()
    after.on_left = told.extend
    await after.adopt()
    await after.catch_up()
    assert after.status() is None
    assert len(told) == 3
    assert await total(database) == times(3)
    await after.close()


async def test_a_stop_waits_so_long_for_a_database_that_hangs(
    database: Database, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aimux.metering.ledger.LAST_CHANCE", 0.1)
    flaky = Flaky(database)
    ledger = make(flaky)
    ledger.record(record())
    await settled(ledger)
    flaky.go_on.clear()
    ledger.record(record(NOON + 1))
    await ledger.flush()
    ledger.record(record(NOON + 2))
    async with asyncio.timeout(5):
        await ledger.close()
    assert await total(database) == ONE
    after = make()
    await after.adopt()
    await settled(after)
    assert await total(database) == times(3)
    await after.close()


async def test_a_record_that_is_none_takes_no_other_along(
    database: Database, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    ledger, broken = make(), record(NOON + 1)
    broken.steps = [None, None]  # type: ignore[list-item]
    for one in (record(NOON), broken, record(NOON + 2)):
        ledger.record(one)
    await ledger.flush()
    await ledger.catch_up()
    assert await total(database) == times(2)
    status = ledger.status()
    assert status is not None
    assert status["lost_requests"] == 1
    assert f"{broken.request_id} can't be written to the ledger" in caplog.text
    await ledger.close()


async def test_a_fault_in_writing_is_not_the_last_of_it(
    database: Database, make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ledger, faults = make(), [ValueError("odd"), KeyError("odd")]
    real = ledger._flush

    async def flush() -> None:
        if faults:
            raise faults.pop()
        await real()

    await ledger.start()
    monkeypatch.setattr(ledger, "_flush", flush)
    ledger.record(record())
    async with asyncio.timeout(10):
        while await total(database) != ONE:
            await asyncio.sleep(0.02)
    await ledger.close()
    assert caplog.text.count("a fault in the ledger: KeyError") == 1, "once a minute"


async def test_a_fault_at_a_stop_leaves_all_to_the_next_start(
    database: Database, make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = make(), make()

    async def flush() -> None:
        raise ValueError("odd")

    monkeypatch.setattr(first, "flush", flush)
    first.record(record())
    await first.close()
    assert "a fault in the ledger" in caplog.text
    await second.start()
    await settled(second)
    await second.close()
    assert await total(database) == ONE


async def test_what_neither_takes_at_a_stop_is_said_to_be_lost(
    database: Database, make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And of what waits in memory until then, no more than there is room for."""
    monkeypatch.setattr("aimux.metering.ledger.LAST_CHANCE", 0.1)
    monkeypatch.setattr("aimux.metering.ledger.MOST_HELD", 3)
    flaky = Flaky(database)
    flaky.away = True
    ledger = make(flaky)

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fdatasync", full)
    for number in range(5):
        ledger.record(record(NOON + number))
        await ledger.flush()
    status = ledger.status()
    assert status is not None
    assert (status["unsaved_requests"], status["lost_requests"]) == (3, 2)
    assert status["disk"] == os.strerror(errno.ENOSPC)
    ledger.record(record(NOON + 9))
    await ledger.close()
    assert "3 of the requests are lost: neither the database nor the disk takes them" in caplog.text
