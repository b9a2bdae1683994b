"""What every engine does: the contract that the other rooms build on."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from aimux import __version__
from aimux.storage import Conflict, Database, StorageError
from aimux.storage.migrations import HEAD
from aimux.storage.schema.base import meta
from tests.storage.conftest import Open, keys, put
from tests.waiting import until

ROOT = Path(__file__).parents[2]


async def test_what_one_node_writes_another_reads(opened: Open) -> None:
    one, other = await opened(), await opened()
    await put(one, "a")
    assert await keys(other) == ["a"]


async def test_an_exception_rolls_back_and_tells_nobody(opened: Open) -> None:
    database, told = await opened(), []
    database.subscribe("topic", lambda: told.append("told"))
    with pytest.raises(LookupError):
        async with database.write("topic") as connection:
            await connection.execute(meta.insert().values(key="a", value="1"))
            raise LookupError
    assert await keys(database) == []
    assert told == []


async def test_a_broken_constraint_is_a_conflict_and_shows_no_value(opened: Open) -> None:
    database = await opened()
    await put(database, "a-secret-key")
    with pytest.raises(Conflict, match="meta") as caught:
        await put(database, "a-secret-key")
    assert "a-secret-key" not in str(caught.value)
    assert database.trouble is None


async def test_a_wrong_statement_shows_no_value(opened: Open) -> None:
    database = await opened()
    with pytest.raises(StorageError) as caught:
        async with database.write("topic") as connection:
            await connection.exec_driver_sql("INSERT INTO nowhere VALUES ('a-secret-value')")
    assert "a-secret-value" not in str(caught.value) + repr(caught.value.__cause__)


async def test_a_read_sees_one_state_and_writes_nothing(opened: Open) -> None:
    one, other = await opened(), await opened()
    await put(one, "a")
    async with one.read() as connection:
        first = len((await connection.execute(meta.select())).all())
        await put(other, "b")
        assert len((await connection.execute(meta.select())).all()) == first
    with pytest.raises(StorageError):
        async with one.read() as connection:
            await connection.execute(meta.insert().values(key="c", value="1"))
    assert await keys(one) == ["a", "b"]


async def test_many_writers_wait_for_each_other(opened: Open) -> None:
    nodes = [await opened() for _ in range(3)]
    await asyncio.gather(*(put(nodes[n % 3], f"{n:03}") for n in range(60)))
    assert await keys(nodes[0]) == [f"{n:03}" for n in range(60)]


async def test_a_cancelled_writer_leaves_nothing_and_keeps_nobody(opened: Open) -> None:
    database = await opened()
    inside = asyncio.Event()

    async def write() -> None:
        async with database.write("topic") as connection:
            await connection.execute(meta.insert().values(key="a", value="1"))
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write())
    await inside.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(5):
        await put(database, "b")
    assert await keys(database) == ["b"]


async def test_another_node_hears_of_a_change_within_a_second_and_the_writer_at_once(opened: Open) -> None:
    one, other = await opened(), await opened()
    heard, others, own = asyncio.Event(), [], []
    other.subscribe("topic", heard.set)
    other.subscribe("other topic", lambda: others.append("heard"))
    one.subscribe("topic", lambda: own.append("heard"))
    await put(one, "now")
    assert own == ["heard"]
    async with asyncio.timeout(1):
        await heard.wait()
    await put(other, "back")
    await until(lambda: len(own) >= 2, 1)
    assert (own, others) == (["heard"] * 2, [])


async def test_what_a_node_writes_it_hears_once(opened: Open) -> None:
    database, told = await opened(), []
    database.subscribe("topic", lambda: told.append("told"))
    await put(database, "a")
    other = await opened()
    elsewhere = asyncio.Event()
    database.subscribe("elsewhere", elsewhere.set)
    await put(other, "b", topic="elsewhere")
    await elsewhere.wait()  # and with it everything before
    assert told == ["told"]


async def test_a_subscriber_that_fails_keeps_nobody_from_hearing(
    opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    database, told = await opened(), []

    def fail() -> None:
        raise LookupError

    database.subscribe("topic", fail)
    database.subscribe("topic", lambda: told.append("told"))
    end = database.subscribe("topic", lambda: told.append("ended"))
    end()
    await put(database, "a")
    assert told == ["told"]
    assert "a subscriber of 'topic' failed" in caplog.text


async def test_everybody_looks_again_now_and_then(database_url: str | None, state_dir: Path) -> None:
    database = await Database.open(database_url, state_dir, full_look=0.01)
    try:
        await put(database, "a")
        heard = asyncio.Event()
        database.subscribe("whatever", heard.set)
        async with asyncio.timeout(5):
            await heard.wait()
    finally:
        await database.close()


async def test_a_newer_schema_is_refused_and_left_alone(opened: Open) -> None:
    database = await opened()
    await put(database, "a")
    async with database.write() as connection:
        await connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StorageError, match=r"9999.*install the aimux") as caught:
        await opened()
    assert HEAD in str(caught.value)
    async with database.write() as connection:
        await connection.exec_driver_sql("INSERT INTO migrations (version, aimux) VALUES ('9999', '7.8.9')")
    with pytest.raises(StorageError, match=r"install aimux 7\.8\.9 or a newer one"):
        await opened()
    async with database.read() as connection:
        assert (await connection.exec_driver_sql("SELECT version_num FROM alembic_version")).scalar_one() == "9999"


async def test_who_made_the_schema_is_in_it(opened: Open) -> None:
    database = await opened()
    await put(database, "a")
    async with database.read() as connection:
        rows = (await connection.exec_driver_sql("SELECT version, aimux FROM migrations")).all()
    assert [tuple(row) for row in rows] == [(HEAD, __version__)]


async def test_nodes_that_start_at_once_make_one_schema(opened: Open) -> None:
    nodes = await asyncio.gather(*(opened() for _ in range(4)))
    await asyncio.gather(*(put(node, str(n)) for n, node in enumerate(nodes)))
    assert await keys(nodes[0]) == ["0", "1", "2", "3"]


async def test_a_kill_in_any_write_loses_nothing_that_was_answered(
    opened: Open, database_url: str | None, state_dir: Path
) -> None:
    database, answered = await opened(), []
    await put(database, "made")
    for round_ in range(5):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.storage.child", database_url or "", str(state_dir), f"{round_}-"),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        for _ in range(7 * round_ + 1):
            assert await process.stdout.readline()
        process.kill()
        rest = await process.stdout.read()
        await process.wait()
        answered += [f"{round_}-{n}" for n in range(7 * round_ + 1 + rest.count(b"\n"))]
    found = await keys(await opened())
    assert set(answered) <= set(found)
    assert len(found) <= len(answered) + 1 + 5, "and at most one a round that was not answered yet"


async def test_an_unknown_kind_of_url_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="postgresql://"):
        await Database.open("mysql://localhost/x", tmp_path)
