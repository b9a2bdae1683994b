"""A ledger over either database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC
from pathlib import Path

import pytest

from aimux.metering.calendar import Calendar
from aimux.metering.flattener import Flattener
from aimux.metering.ledger import Ledger
from aimux.storage import Database

from .support import Cheap

Make = Callable[..., Ledger]


@pytest.fixture
async def database(database_url: str | None, tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(database_url, tmp_path / "state")
    yield opened
    await opened.close()


@pytest.fixture
def make(database: Database, tmp_path: Path) -> Make:
    """A ledger; each one is another process's, in the same state folder."""

    def one(over: Database = database, *, spill_limit: int = 1 << 20, keep: float = 90 * 86400.0) -> Ledger:
        flattener = Flattener("node", Cheap())
        return Ledger(over, flattener, Calendar(UTC), tmp_path / "ledger", spill_limit=spill_limit, keep=keep)

    return one
