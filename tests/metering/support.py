"""Records as the gateway makes them, what the database holds of them, and a database that fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, cast, func, select

from aimux.metering.ledger import Ledger
from aimux.metering.prices import Prices
from aimux.metering.record import RequestRecord, Sender, new_id
from aimux.plugin.usage import Usage
from aimux.storage import Database, StorageError, Unusable
from aimux.storage.engine import Connection
from aimux.storage.schema import METADATA, ledger

if TYPE_CHECKING:
    from aimux.storage.engine import Statement

NOON = 1_795_694_400.0
"""2026-11-26 12:00:00 UTC."""
HOUR, DAY = 3600.0, 86400.0


def record(time: float = NOON, **changes: Any) -> RequestRecord:
    """A request of ann's that was served; `usage` as a mapping of Usage's fields."""
    usage = {"model": "sonnet", "input_tokens": 10, "output_tokens": 5} | changes.pop("usage", {})
    sender = Sender(**{"mount": "/claude", "token": "t1", "groups": ("team",)} | changes.pop("sender", {}))
    fields: dict[str, Any] = {
        "user": "ann",
        "sender": sender,
        "provider": "claude",
        "account": "default",
        "conversation": "talk",
        "status": 200,
        "duration": 1.5,
        "ttfb": 0.25,
        "attempts": 1,
        "usage": Usage(**usage),
    }
    own = new_id(time)
    return RequestRecord(own, time, "POST", "/claude/v1/messages", own, **fields | changes)


class Cheap(Prices):
    """A dollar for a billion tokens; no price for models called `unknown…`."""

    def cost(self, provider: str, account: str, model: str, usage: Usage, at: int) -> int | None:
        return None if model.startswith("unknown") else usage.total_input + usage.output_tokens


async def total(database: Database, table: str = "usage_hours") -> dict[str, int]:
    """The sums of a table of roll-ups over everything, without what is 0."""
    found = METADATA.tables[table]
    sums = [cast(func.coalesce(func.sum(found.c[name]), 0), BigInteger).label(name) for name in ledger.MEASURES]
    statement = select(*sums)
    if "key" in found.c:
        statement = statement.where(found.c.key != 0)
    async with database.read() as connection:
        row = (await connection.execute(statement)).one()
    return {name: value for name, value in row._mapping.items() if value}


async def rows(database: Database, *columns: str) -> list[tuple[Any, ...]]:
    """Columns of every request, in the order of ids."""
    table = ledger.requests
    async with database.read() as connection:
        found = await connection.execute(select(*[table.c[name] for name in columns]).order_by(table.c.id))
        return [tuple(row) for row in found]


async def settled(ledger: Ledger) -> None:
    """Until everything that was recorded is in the database."""
    async with asyncio.timeout(10):
        await ledger.flush()
        while ledger.status() is not None:
            await asyncio.sleep(0.02)
            await ledger.flush()


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
        self.tries = 0
        self.writes = 0
        """How often something was committed."""
        self.go_on = asyncio.Event()
        self.go_on.set()

    @asynccontextmanager
    async def write(self, *topics: str) -> AsyncIterator[Connection]:
        await self._begin()
        async with self._database.write(*topics) as connection:
            yield connection
        self._end()

    async def at_once(self, statements: Iterable[Statement]) -> bool:
        await self._begin()
        if done := await self._database.at_once(statements):
            self._end()
        return done

    async def _begin(self) -> None:
        self.tries += 1
        await self.go_on.wait()
        if self.away:
            raise StorageError("it is away")
        if self.full:
            raise Unusable("its disk is full")

    def _end(self) -> None:
        self.writes += 1
        if self.commits_and_fails:
            raise StorageError("the connection was lost")

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Connection]:
        if self.away:
            raise StorageError("it is away")
        async with self._database.read() as connection:
            yield connection
