"""What every engine does: the contract that the other rooms build on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from aimux.storage import Conflict, Database, StorageError
from aimux.storage.schema import METADATA
from aimux.storage.schema.base import meta

Open = Callable[[], Awaitable[Database]]


@pytest.fixture
async def opened(database_url: str | None, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens the test's database, as often as it is called: each is a node."""
    nodes: list[Database] = []

    async def open_one() -> Database:
        nodes.append(await Database.open(database_url, tmp_path / "state"))
        return nodes[-1]

    yield open_one
    for node in nodes:
        await node.close()


async def put(database: Database, key: str, value: str = "1") -> None:
    async with database.write("topic") as connection:
        await connection.execute(meta.insert().values(key=key, value=value))


async def keys(database: Database) -> list[str]:
    async with database.read() as connection:
        return sorted((await connection.execute(meta.select().with_only_columns(meta.c.key))).scalars())


async def test_what_one_node_writes_another_reads(opened: Open) -> None:
    one, other = await opened(), await opened()
    await put(one, "a")
    assert await keys(other) == ["a"]


async def test_an_exception_rolls_back(opened: Open) -> None:
    database = await opened()
    with pytest.raises(LookupError):
        async with database.write("topic") as connection:
            await connection.execute(meta.insert().values(key="a", value="1"))
            raise LookupError
    assert await keys(database) == []


async def test_a_broken_constraint_is_a_conflict_and_shows_no_value(opened: Open) -> None:
    database = await opened()
    await put(database, "a-secret-key")
    with pytest.raises(Conflict) as caught:
        await put(database, "a-secret-key")
    assert "a-secret-key" not in str(caught.value)


async def test_another_node_hears_of_a_change_within_a_second_and_the_writer_at_once(opened: Open) -> None:
    one, other = await opened(), await opened()
    await put(one, "first")
    async with asyncio.timeout(5):  # until both listen
        heard = asyncio.Event()
        other.subscribe("topic", heard.set)
        while not heard.is_set():
            await put(one, f"again-{len(await keys(one))}")
            await asyncio.sleep(0.05)
    heard.clear()
    own: list[str] = []
    one.subscribe("topic", lambda: own.append("heard"))
    await put(one, "now")
    assert own == ["heard"]
    async with asyncio.timeout(1):
        await heard.wait()


async def test_the_migrations_lead_to_the_metadata(opened: Open) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    async with (await opened()).read() as connection:
        differences = await connection.run_sync(
            lambda c: compare_metadata(MigrationContext.configure(c, opts={"compare_server_default": False}), METADATA)
        )
    assert differences == []


async def test_an_unknown_kind_of_url_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="postgresql://"):
        await Database.open("mysql://localhost/x", tmp_path)
