"""People on a database of either kind, by as many nodes as a test wants."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from aimux.people import People
from aimux.people.audit import Actor
from aimux.people.directory import Configured
from aimux.storage import Database

Node = Callable[..., Awaitable[People]]

ADMIN = Actor("admin", "192.0.2.1")


@pytest.fixture
async def node(database_url: str | None, tmp_path: Path) -> AsyncIterator[Node]:
    """Starts a node with the people of the test's database, as often as it is called."""
    started: list[People] = []

    async def start(configured: Configured | None = None) -> People:
        database = await Database.open(database_url, tmp_path / "state")
        people = People(database, configured or Configured())
        started.append(people)
        await people.start()
        return people

    yield start
    for people in started:
        await people.close()
        await people.database.close()


@pytest.fixture
async def people(node: Node) -> People:
    return await node()
