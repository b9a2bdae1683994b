"""Every request is in the ledger once, whatever happens to the database."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from aimux.metering.flattener import Flattener
from aimux.metering.ledger import FAILURES
from aimux.metering.record import Step
from aimux.storage import Database
from aimux.storage.schema import ledger as schema

from .conftest import Make
from .support import NOON, ONE, Cheap, Flaky, record, rows, settled, times, total


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


async def test_a_large_batch_is_what_its_requests_are(database: Database, make: Make) -> None:
    """Many are written in one statement, those that say the usual in another one."""
    told: list[dict[str, Any]] = [
        {},
        {"steps": [Step("claude", "default", 200, "relay", "", 0.1, upstream_id="req_1")], "model": "sonnet-latest"},
        {"usage": {"reasoning_tokens": 2, "server_tools": 1, "estimated": True}},
        {"usage": {"model": "unknown-1"}, "conversation": "", "ttfb": None, "status": 502, "error": "upstream_lost"},
        {"bytes_in": 7, "usage": {"model": "", "input_tokens": 0, "output_tokens": 0}},
    ]
    mixed = [record(NOON + number % 7200, user=f"user{number % 70}", **told[number % 5]) for number in range(400)]
    usual = [record(NOON + 7200, user=f"user{number % 70}") for number in range(150)]
    mixed[3].request_id = "clients-own"
    mixed[4].method, mixed[4].path = "GET", "/claude/v1/modèles"
    ledger, flattener = make(), Flattener("node", Cheap())
    batch = [*mixed, *usual]
    for one in batch:
        ledger.record(one)
    await settled(ledger)
    assert await written(database) == expected(flattener.rows(batch))
    sums = {"requests": 550, "errors": 80, "unpriced": 80, "estimated": 80, "input": 4700, "output": 2350}
    sums |= {"reasoning": 160, "server_tools": 80, "duration": 825_000, "cost": 5850}
    assert await total(database) == sums
    await ledger.close()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"conversation": "", "ttfb": None, "usage": {"model": "unknown-1"}},
        {"status": 404, "error": "not_found", "attempts": 0},
        {"steps": [Step("claude", "default", 200, "relay", "", 0.1, upstream_id="req_1")], "model": "sonnet-latest"},
        {"usage": {"cache_write_1h_tokens": 3, "reasoning_tokens": 2, "server_tools": 1, "estimated": True}},
    ],
)
async def test_what_a_batch_says_alike_is_in_every_row(database: Database, make: Make, changes: dict[str, Any]) -> None:
    ledger, flattener = make(), Flattener("node", Cheap())
    batch = [record(NOON + number, **changes) for number in range(73)]
    for one in batch:
        ledger.record(one)
    await settled(ledger)
    assert await written(database) == expected(flattener.rows(batch))
    await ledger.close()


def expected(rows: list[tuple[Any, ...]]) -> dict[str, dict[str, Any]]:
    """The rows of `requests` that should be there, by id."""
    columns = [column.name for column in schema.requests.c]
    found = {row[0]: dict(zip(columns, row, strict=False)) for row in rows}
    for row in found.values():
        row["detail"] = json.loads(row["detail"]) if row["detail"] else None
    return found


async def written(database: Database) -> dict[str, dict[str, Any]]:
    """Those that are there."""
    async with database.read() as connection:
        found = (await connection.execute(select(schema.requests))).mappings()
        return {row["id"]: dict(row) for row in found}


async def test_who_has_no_token_leaves_no_row(database: Database, make: Make) -> None:
    ledger = make()
    ledger.record(record(user="", attempts=0, status=401))
    ledger.record(record(user="", attempts=1))  # anonymous, and allowed to be
    await settled(ledger)
    assert await rows(database, "status") == [(200,)]
    await ledger.close()


async def test_what_aimux_answers_by_itself_is_no_use_of_an_account(database: Database, make: Make) -> None:
    ledger = make()
    ledger.record(record(attempts=0, usage={}))  # how much of the limits is used
    ledger.record(record(attempts=0, usage={}, status=429, error="rate_limited"))
    await settled(ledger)
    assert await rows(database, "status") == [(429,)]
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
