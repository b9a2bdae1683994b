"""Every request is in the ledger once, whatever happens to the database."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from aimux.metering.ledger import FAILURES
from aimux.metering.record import Step
from aimux.storage import Database, StorageError, Unusable
from aimux.storage.schema import ledger as schema

from .conftest import Make
from .support import NOON, record, rows, settled, total

ONE = {"requests": 1, "input": 10, "output": 5, "cost": 15, "duration": 1500}


def times(count: int) -> dict[str, int]:
    return {name: value * count for name, value in ONE.items()}


class Flaky:
    """A database that can be away or full (writes fail), or hang."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.away = False
        self.full = False
        self.commits_and_fails = False
        self.writes = 0
        """How often something was committed."""
        self.go_on = asyncio.Event()
        self.go_on.set()

    @asynccontextmanager
    async def write(self, *topics: str) -> AsyncIterator[AsyncConnection]:
        await self.go_on.wait()
        if self.away:
            raise StorageError("it is away")
        if self.full:
            raise Unusable("its disk is full")
        async with self._database.write(*topics) as connection:
            yield connection
        self.writes += 1
        if self.commits_and_fails:
            raise StorageError("the connection was lost")

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        if self.away:
            raise StorageError("it is away")
        async with self._database.read() as connection:
            yield connection


async def test_a_request_is_a_row_and_a_part_of_its_hour(database: Database, make: Make) -> None:
    ledger = make()
    steps = [Step("claude", "two", 429, "cool_down", "limited", 0.1), Step("claude", "default", 200, "relay", "", 0.2)]
    one = record(
        attempts=2,
        steps=steps,
        model="sonnet-latest",
        sender={"request_class": "subagent", "client": "claude-cli/2", "agent": "a7"},
        usage={"cache_read_tokens": 3, "cache_write_tokens": 4, "cache_write_1h_tokens": 1, "tier": "priority"},
    )
    one.request_id = "clients-own"
    ledger.record(one)
    await settled(ledger)
    async with database.read() as connection:
        (row,) = (await connection.execute(select(schema.requests))).mappings()
        keys = {key["id"]: key for key in (await connection.execute(select(schema.usage_keys))).mappings()}
    key = keys[row["key"]]
    assert (row["id"], row["request_id"], row["at"], row["node"]) == (one.id, "clients-own", NOON * 1000, "node")
    assert (row["status"], row["duration"], row["ttfb"], row["conversation"]) == (200, 1500, 250, "talk")
    assert (row["input"], row["cache_read"], row["cache_write"], row["cache_write_1h"]) == (10, 3, 4, 1)
    assert (row["cost"], row["estimated"]) == (22, False)
    assert row["detail"] == {
        "asked": "sonnet-latest",
        "attempts": 2,
        "steps": [list(step) for step in steps],
        "tier": "priority",
        "agent": "a7",
    }
    served = keys[key["served"]]
    assert (served["user"], served["token"], served["groups"], served["mount"]) == ("", "", [], "")
    assert [served[name] for name in ("model", "class", "served")] == ["sonnet", "subagent", key["served"]]
    assert (key["user"], key["groups"], key["model"]) == ("ann", ["team"], "sonnet")
    assert (key["class"], key["client"], key["mount"]) == ("subagent", "claude-cli/2", "/claude")
    hours = {"cache_read": 3, "cache_write": 4, "cache_write_1h": 1, "cost": 22}
    assert await total(database) == ONE | hours
    await ledger.close()


async def test_who_has_no_token_leaves_no_row(database: Database, make: Make) -> None:
    ledger = make()
    ledger.record(record(user="", attempts=0, status=401))
    ledger.record(record(user="", attempts=1))  # anonymous, and allowed to be
    await settled(ledger)
    assert await rows(database, "status") == [(200,)]
    await ledger.close()


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


async def test_half_a_line_is_what_a_crash_leaves_and_no_more_is_lost(
    database: Database, make: Make, tmp_path: Path
) -> None:
    flaky = Flaky(database)
    first = make(flaky)
    flaky.away = True
    for _ in range(3):
        first.record(record())
    await first.close()
    (file,) = (tmp_path / "ledger").iterdir()
    file.write_bytes(file.read_bytes()[:-40])
    second = make()
    await second.start()
    async with asyncio.timeout(10):
        while list((tmp_path / "ledger").iterdir()):
            await asyncio.sleep(0.05)
    await second.close()
    assert await total(database) == times(2)


async def test_nobody_takes_over_a_file_that_is_in_use(database: Database, make: Make, tmp_path: Path) -> None:
    flaky = Flaky(database)
    first = make(flaky)
    flaky.away = True
    first.record(record())
    await first.flush()
    second = make()
    await second.start()
    await asyncio.sleep(0.1)
    assert list((tmp_path / "ledger").iterdir())
    await second.close()
    flaky.away = False
    await settled(first)
    assert await total(database) == ONE
    await first.close()


async def test_at_its_limit_the_spill_takes_no_more_and_says_so_before(
    database: Database, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    flaky = Flaky(database)
    ledger = make(flaky, spill_limit=8000)
    flaky.away = True
    filled = []
    for _ in range(60):
        ledger.record(record())
        await ledger.flush()
        status = ledger.status()
        assert status is not None
        filled.append((status["filled"], status["lost_requests"]))
        assert status["waiting_bytes"] <= 8000
    assert any(0.8 < part <= 1 and not lost for part, lost in filled)
    lost = filled[-1][1]
    assert 0 < lost < 50
    assert "`ledger.spill_limit` is used" in caplog.text
    flaky.away = False
    async with asyncio.timeout(10):
        while await total(database) != times(60 - lost):
            await asyncio.sleep(0.05)
            await ledger.flush()
    await ledger.close()


async def test_a_disk_that_takes_nothing_leaves_no_empty_file_open(
    database: Database, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    flaky = Flaky(database)
    ledger = make(flaky)
    flaky.away = True
    with monkeypatch.context() as disk:
        disk.setattr(os, "fdatasync", full)
        ledger.record(record())
        await ledger.flush()
    assert not list(tmp_path.rglob("*.rows"))
    await ledger.flush()
    assert list(tmp_path.rglob("*.rows"))
    flaky.away = False
    await settled(ledger)
    assert await total(database) == times(1)
    await ledger.close()


async def test_a_file_that_can_not_be_removed_takes_nothing_along(
    database: Database, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(_path: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    flaky = Flaky(database)
    ledger = make(flaky)

    async def spilt() -> None:
        flaky.away = True
        ledger.record(record())
        await ledger.flush()
        flaky.away = False
        await settled(ledger)

    with monkeypatch.context() as disk:
        disk.setattr(Path, "unlink", read_only)
        await spilt()
    assert len(list(tmp_path.rglob("*.rows"))) == 1
    await spilt()
    assert await total(database) == times(2), "what comes later is not put into it"
    await ledger.adopt()
    await settled(ledger)
    assert not list(tmp_path.rglob("*.rows"))
    assert await total(database) == times(2)
    await ledger.close()


async def test_an_empty_file_of_a_killed_process_is_removed(database: Database, make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    folder.mkdir()
    left = folder / "0123456789abcdef0123456789abcdef.rows"
    left.touch()
    ledger = make()
    await ledger.adopt()
    assert not left.exists()
    ledger.record(record())
    await settled(ledger)
    assert await total(database) == ONE
    await ledger.close()


async def test_nothing_waits_for_the_disk_while_the_database_is_opened(
    database: Database, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Importing what that needs takes half a second, and several on a busy machine."""
    opening, go_on = threading.Event(), threading.Event()

    def slowly() -> None:
        opening.set()
        go_on.wait(10)

    monkeypatch.setattr("aimux.metering.ledger.prepare", slowly)
    ledger = make()
    try:
        for count in (1, 2, 3):
            ledger.record(record())
            async with asyncio.timeout(5):
                await ledger.flush()
            assert opening.is_set()
            (file,) = (tmp_path / "ledger").iterdir()
            assert len(file.read_bytes().splitlines()) == count
    finally:
        go_on.set()
    await settled(ledger)
    assert await total(database) == times(3)
    await ledger.close()


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


async def test_foreign_texts_fit_either_database(database: Database, make: Make) -> None:
    ledger = make()
    odd = "nul \0 surrogate \ud800 " + "x" * 5000
    ledger.record(record(conversation=odd, model=odd, usage={"model": odd}, error=""))
    await settled(ledger)
    ((conversation, detail),) = await rows(database, "conversation", "detail")
    assert len(conversation) == 256
    assert json.dumps(detail).isascii()
    await ledger.close()


async def test_clients_can_not_fill_the_keys(database: Database, make: Make) -> None:
    ledger = make()
    for number in range(400):
        ledger.record(record(sender={"client": f"c{number}"}))
        ledger.record(record(status=404, model=f"made-up-{number}", usage={"output_tokens": 0, "input_tokens": 0}))
    await settled(ledger)
    async with database.read() as connection:
        keys = (await connection.execute(select(schema.usage_keys.c.client, schema.usage_keys.c.model))).all()
    assert len(keys) < 420, "and the key of each without its sender"
    assert ("other", "sonnet") in [tuple(key) for key in keys]
    await ledger.close()
