"""Nodes that write and fold at the same moment lock what tells how far was folded in one order: by name.

Else two of them wait for each other now and then, until PostgreSQL ends one after a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC
from pathlib import Path

import pytest
from sqlalchemy import text

from aimux.metering.calendar import Calendar
from aimux.metering.flattener import Flattener
from aimux.metering.rollups import fold
from aimux.metering.store import LedgerStore
from aimux.storage import Database
from aimux.storage.engine import Connection

from .support import NOON, Cheap, record

CALENDAR = Calendar(UTC)
LOCK = "SELECT name FROM usage_folded WHERE name = :name FOR UPDATE"


@pytest.fixture
async def database(tables_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(tables_url, tmp_path)
    yield opened
    await opened.close()


async def write(database: Database) -> None:
    """A batch, as a node does that is not alone."""

    async def nothing(_connection: Connection, _rows: object) -> None: ...

    store = LedgerStore(database, CALENDAR)
    store.beside = nothing
    await store.write(Flattener("node", Cheap()).rows([record()]), int(NOON * 1000))


@asynccontextmanager
async def locked(database: Database, name: str) -> AsyncIterator[None]:
    async with database.write() as connection:
        await connection.execute(text(LOCK), {"name": name})
        yield


async def is_free(database: Database, name: str) -> bool:
    async with database.write() as connection:
        return bool((await connection.execute(text(f"{LOCK} SKIP LOCKED"), {"name": name})).all())


async def one_waits(database: Database) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(10):
        while True:
            async with database.read() as connection:
                if (await connection.execute(text(waiting))).scalar_one():
                    return
            await asyncio.sleep(0.01)


async def test_a_batch(database: Database) -> None:
    await write(database)
    for name in ("conversations", "days"):  # their rows lie behind that of the months now
        async with database.write() as connection:
            await connection.execute(text("UPDATE usage_folded SET until = 1 WHERE name = :name"), {"name": name})
    async with locked(database, "months"):
        batch = asyncio.create_task(write(database))
        await one_waits(database)
        assert not await is_free(database, "days")
    await batch


async def test_a_fold(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await write(database)
    begin, at_months, days_are_locked = database.write, asyncio.Event(), asyncio.Event()
    steps = iter(("conversations", "days", "months"))

    @asynccontextmanager
    async def step(*topics: str) -> AsyncIterator[Connection]:
        if next(steps) == "months":
            at_months.set()
            await days_are_locked.wait()
        async with begin(*topics) as connection:
            yield connection

    while await fold(database, CALENDAR, int(NOON * 1000)):
        pass
    with monkeypatch.context() as patch:
        patch.setattr(database, "write", step)
        folding = asyncio.create_task(fold(database, CALENDAR, int(NOON * 1000)))
        await at_months.wait()
    async with locked(database, "days"):
        days_are_locked.set()
        await one_waits(database)
        assert await is_free(database, "months")
    assert not await folding
