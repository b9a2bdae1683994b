"""Fixtures of the storage's tests."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aimux.storage import Database
from aimux.storage.engine import Connection
from aimux.storage.schema.base import meta

Open = Callable[[], Awaitable[Database]]


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """Where SQLite's file comes to lie; not made yet."""
    return tmp_path / "state"


@pytest.fixture
def tables_url(postgresql_url: str) -> str:
    """An empty database: these tests are about how the tables come, too."""
    return postgresql_url


@pytest.fixture
async def opened(database_url: str | None, state_dir: Path) -> AsyncIterator[Open]:
    """Opens the test's database, as often as it is called: each is a node."""
    nodes: list[Database] = []

    async def open_one() -> Database:
        nodes.append(await Database.open(database_url, state_dir))
        return nodes[-1]

    yield open_one
    for node in nodes:
        await node.close()


def whole(connection: Connection) -> Any:
    """With what both engines' connections have beside what aimux wants of them: `run_sync`."""
    return connection


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with a disk of its own, of one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs may be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def put(database: Database, key: str, value: str = "1", *, topic: str = "topic") -> None:
    """Write one row."""
    async with database.write(topic) as connection:
        await connection.execute(meta.insert().values(key=key, value=value))


async def keys(database: Database) -> list[str]:
    """The keys of the rows that tests wrote."""
    async with database.read() as connection:
        found = await connection.execute(meta.select().with_only_columns(meta.c.key))
        return sorted(found.scalars())


@pytest.fixture
async def written(state_dir: Path) -> Path:
    """The file of a database with some rows in it, which nobody uses."""
    database = await Database.open(None, state_dir)
    for number in range(100):
        await put(database, f"{number:03}", "x" * 500)
    await database.close()
    return state_dir / "aimux.db"
