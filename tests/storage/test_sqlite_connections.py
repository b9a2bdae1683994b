"""Connections to SQLite: who waits for whom, and what a cancellation leaves."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from aimux.storage import Database, sqlite_file
from aimux.storage.schema.base import meta
from aimux.storage.sqlite import CONNECTIONS
from tests.storage.conftest import keys, put, whole

OPEN_FILES = Path("/proc/self/fd")


async def test_more_readers_than_connections_take_turns(written: Path) -> None:
    """And one who is cancelled while it waits takes nobody's place."""
    database, held, go_on = await Database.open(None, written.parent), 0, asyncio.Event()

    async def read() -> int:
        nonlocal held
        async with database.read() as connection:
            held += 1
            await go_on.wait()
            return len((await connection.execute(meta.select())).all())

    readers = [asyncio.create_task(read()) for _ in range(3 * CONNECTIONS)]
    async with asyncio.timeout(10):
        while held < CONNECTIONS:
            await asyncio.sleep(0.01)
        readers[-1].cancel()
        go_on.set()
        done = await asyncio.gather(*readers, return_exceptions=True)
    assert done[:-1] == [100] * (len(readers) - 1)
    assert await keys(database) == [f"{number:03}" for number in range(100)]
    await database.close()


@pytest.mark.skipif(not OPEN_FILES.exists(), reason="needs /proc")
async def test_who_is_cancelled_while_the_database_is_made_leaves_nothing_open(state_dir: Path) -> None:
    database = await Database.open(None, state_dir)
    task = asyncio.create_task(keys(database))
    while not (state_dir / "aimux.db").exists():
        await asyncio.sleep(0.001)
    gc.disable()  # which would close what is forgotten
    try:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        await database.close()
        opened = [file.readlink() for file in OPEN_FILES.iterdir() if file.is_symlink()]
        assert not [path for path in opened if path.is_relative_to(state_dir)]
    finally:
        gc.enable()


async def test_who_is_cancelled_while_connecting_leaves_nothing_open(state_dir: Path) -> None:
    """Python 3.13 and newer warn of a connection that is not closed."""
    for turns in range(0, 40, 2):
        database = await Database.open(None, state_dir)
        task = asyncio.create_task(keys(database))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await database.close()
    gc.collect()


async def test_a_write_that_is_cancelled_keeps_nobody_out(written: Path) -> None:
    """Wherever it was: a statement under way would keep the lock until the garbage with its cursor is collected."""
    database = await Database.open(None, written.parent)

    async def add_and_read(number: int) -> None:
        async with database.write("topic") as connection:
            for step in range(3):
                await connection.execute(meta.insert().values(key=f"{number}-{step}", value="1"))
                await connection.execute(meta.select())

    gc.disable()
    try:
        for number in range(0, 800, 8):
            task = asyncio.create_task(add_and_read(number))
            for _ in range(number):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.to_thread(sqlite_file.try_to_write, written)
    finally:
        gc.enable()
    await database.close()


async def test_a_read_that_is_cancelled_as_it_begins_leaves_the_connection_to_the_next(written: Path) -> None:
    """As long as the exception lived, what was not read to its end would keep the connection in what it reads."""
    database = await Database.open(None, written.parent)
    slow = text(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) SELECT i FROM n ORDER BY -i"
    )
    async with database.read() as connection:
        await connection.execute(meta.select())
        rows = connection.stream(slow, execution_options={"yield_per": 1})
        beginning = asyncio.ensure_future(rows.__aenter__())
        await asyncio.sleep(0)
        beginning.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await beginning
    await asyncio.to_thread(sqlite_file.try_to_write, written)
    await put(database, "later")  # refused to whoever still reads what was there before
    del cancelled
    await database.close()


async def test_readers_that_take_long_leave_threads_to_others(written: Path) -> None:
    """Among these are credentials that are to be saved, and asyncio has no more threads than a few for all."""
    database, go_on = await Database.open(None, written.parent), threading.Event()

    async def read() -> bool:
        async with database.read() as connection:
            done: bool = await whole(connection).run_sync(lambda _: go_on.wait(10))
            return done

    readers = [asyncio.create_task(read()) for _ in range(CONNECTIONS)]
    try:
        async with asyncio.timeout(5):
            assert await asyncio.gather(*(asyncio.to_thread(int) for _ in range(CONNECTIONS))) == [0] * CONNECTIONS
    finally:
        go_on.set()
    assert await asyncio.gather(*readers) == [True] * CONNECTIONS
    await database.close()
