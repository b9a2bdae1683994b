"""The ledger's rows in the database: a batch in one transaction, together with what it adds to the roll-ups.

A batch that is written twice counts once: ids are unique, and roll-ups are added to in the transaction of the rows that
they are sums of.
"""

from __future__ import annotations

import json
from functools import cached_property, partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from aimux.metering.inserts import for_many, inserting_requests
from aimux.metering.rows import AT, ID, KEY, NUMBER, TOTAL, add_up, part_of, sums, sums_of_parts
from aimux.metering.spans import FOREVER
from aimux.storage import Conflict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from sqlalchemy import Table

    from aimux.metering.calendar import Calendar
    from aimux.metering.rows import Key, Part, Values
    from aimux.storage import Database
    from aimux.storage.engine import Connection, Statement

    Beside = Callable[[Connection, Sequence[Values]], Awaitable[None]]

MAX_KNOWN = 100_000
FOLDED = ("conversations", "days", "months")
LATE = 300_000
"""A request that is written this many milliseconds later is late: its hour may be folded by then, and has to be
locked."""


def prepare() -> None:
    """Import what writing needs: half a second that no event loop should wait."""

    import aimux.storage.schema  # noqa: F401


class Statements:
    """The statements as the driver takes them: SQLAlchemy needs longer to pass a row on than SQLite to write it."""

    def __init__(self, connection: Connection) -> None:
        from aimux.storage.schema.base import insert

        self._dialect = connection.dialect
        self._insert = partial(insert, self._dialect)
        self._added: dict[str, str] = {}

    def insert(self, rows: Sequence[Values]) -> Iterator[Statement]:
        """Insert all into `requests`: an IntegrityError where one is there."""
        if self._dialect.name == "sqlite":
            yield from inserting_requests(rows)
        else:
            yield self._requests, [row[:KEY] for row in rows]

    def add(self, table: Table, sums: Sequence[tuple[Any, ...]]) -> Iterator[Statement]:
        """Add measures to rows, or insert rows with them."""
        if not sums:
            return
        if self._dialect.name == "sqlite":
            yield from for_many(self._add(table), sums)
        else:
            yield self._add(table), sums

    @cached_property
    def _requests(self) -> str:
        from sqlalchemy import Boolean, Integer, bindparam, cast

        from aimux.storage.schema.ledger import requests

        # A row has `estimated` as a number, which PostgreSQL does not convert to a boolean by itself.
        values: dict[str, Any] = {column.name: bindparam(column.name, type_=column.type) for column in requests.c}
        values["estimated"] = cast(bindparam("estimated", type_=Integer), Boolean)
        return self._sql(self._insert(requests).values(values))

    @cached_property
    def keys(self) -> str:
        from aimux.storage.schema.ledger import usage_keys

        return self._sql(self._insert(usage_keys).on_conflict_do_nothing())

    @cached_property
    def folded(self) -> str:
        from aimux.storage.schema.ledger import folded

        return self._sql(self._insert(folded).on_conflict_do_nothing())

    def _add(self, table: Table) -> str:
        from aimux.storage.schema.ledger import MEASURES

        if table.name not in self._added:
            statement = self._insert(table)
            added = {name: table.c[name] + statement.excluded[name] for name in MEASURES}
            upsert = statement.on_conflict_do_update(index_elements=[*table.primary_key], set_=added)
            self._added[table.name] = self._sql(upsert)
        return self._added[table.name]

    def _sql(self, statement: Any) -> str:
        return str(statement.compile(dialect=self._dialect))


class LedgerStore:
    """Writes batches. One at a time."""

    def __init__(self, database: Database, calendar: Calendar) -> None:
        self._database = database
        self.calendar = calendar
        self.beside: Beside | None = None
        """What is written in the transaction of each batch, as the last thing in it, where there are other nodes."""
        self._statements: Statements | None = None
        self._known: set[int] = set()
        self.latest = 0
        """The latest time at which anything was written or folded, whatever the clock says now."""
        self._folded = FOREVER
        """Up to when hours may be folded already, as was last looked up: a clock may have been set back before that."""

    async def write(self, rows: Sequence[Values], now: int) -> None:
        """Write the rows that are not there yet. `now`: milliseconds. Raises StorageError."""
        ids = [row[ID] for row in rows]
        if ids != sorted(ids):
            rows = sorted(rows, key=itemgetter(ID))
        try:
            await self._write(rows, now)
        except Conflict:  # some are there, or come twice: they were written or put by, and nobody told us
            await self._write(await self.missing(rows), now)

    async def _write(self, rows: Sequence[Values], now: int) -> None:
        if not rows:
            return
        times = [row[AT] for row in rows]
        first = min(times)
        added = sums(rows, first, max(times), self.calendar)
        fresh = self._unknown(rows, {number for _, number, *_ in added})
        self.latest = max(self.latest, now)
        late_until = max(self.latest - LATE, self._folded)
        late = [part_of(row) for row in rows if row[AT] < late_until] if first < late_until else []
        sql = self._statements
        if (
            sql is None
            or late
            or self.beside is not None
            or not await self._database.at_once(self._usual(sql, rows, fresh, added))
        ):
            async with self._database.write() as connection:
                sql = self._statements = self._statements or Statements(connection)
                await execute(connection, self._usual(sql, rows, fresh, added))
                if self.beside is not None:
                    # Other nodes fold, too, and by clocks of their own.
                    until = max((await _folded_until(connection, sql)).values())
                    late = [part_of(row) for row in rows if row[AT] < until] if first < until else []
                if late:
                    self._folded = await add_to_folded(connection, sql, self.calendar, late)
                if self.beside is not None:
                    await self.beside(connection, rows)
        if len(self._known) > MAX_KNOWN:
            self._known.clear()
        self._known.update(fresh)

    def _usual(
        self, sql: Statements, rows: Sequence[Values], fresh: dict[int, Any], added: Sequence[tuple[Any, ...]]
    ) -> Iterator[Statement]:
        """What every batch is written by."""
        from aimux.storage.schema.ledger import usage_hours

        yield from sql.insert(rows)
        if fresh:
            yield sql.keys, list(fresh.values())
        yield from sql.add(usage_hours, added)

    def _unknown(self, rows: Iterable[Values], numbers: set[int]) -> dict[int, tuple[Any, ...]]:
        """The keys among these that the database may not have yet."""
        fresh = numbers - self._known - {TOTAL}
        if not fresh:
            return {}
        found: dict[int, Key] = {}
        for row in rows:
            if row[NUMBER] in fresh:
                found[row[NUMBER]] = key = row[KEY]
                served = key.served()
                found[served.hash()] = served
        return {number: values_of(number, key) for number, key in sorted(found.items())}

    async def missing(self, rows: Sequence[Values]) -> list[Values]:
        """Those that are not there yet, each once. Raises StorageError."""
        from sqlalchemy import select

        from aimux.storage.schema.ledger import requests

        there: set[str] = set()
        async with self._database.read() as connection:
            for start in range(0, len(rows), 500):
                ids = [row[ID] for row in rows[start : start + 500]]
                there.update((await connection.execute(select(requests.c.id).where(requests.c.id.in_(ids)))).scalars())
        return [*{row[ID]: row for row in rows if row[ID] not in there}.values()]


async def execute(connection: Connection, statements: Iterable[Statement]) -> None:
    """Each of them with each of its rows."""
    for statement, rows in statements:
        await connection.exec_driver_sql(statement, rows)


def values_of(number: int, key: Key) -> tuple[Any, ...]:
    """A row of `usage_keys`."""
    return (number, *key[:2], json.dumps(key.groups), *key[3:], key.served().hash())


async def add_to_folded(connection: Connection, sql: Statements, calendar: Calendar, parts: Sequence[Part]) -> int:
    """Add to days, months and conversations that were folded without these parts. Returns up to when any are."""
    from aimux.storage.schema import ledger

    until = await _folded_until(connection, sql)
    hours = sums_of_parts(parts, calendar)
    folded = {
        ledger.usage_days: add_up(
            ((key, calendar.day(hour)), added) for hour, key, *added in hours if hour < until["days"]
        ),
        ledger.usage_days_served: add_up(
            ((calendar.day(part.at), part.served), part.measures)
            for part in parts
            if calendar.hour(part.at) < until["days"]
        ),
        ledger.usage_months: add_up(
            ((key, calendar.month(hour)), added) for hour, key, *added in hours if hour < until["months"]
        ),
        ledger.usage_conversations: add_up(
            ((calendar.hour(part.at), part.conversation, part.user), part.measures)
            for part in parts
            if part.conversation and part.at < until["conversations"]
        ),
    }
    for table, added in folded.items():
        await execute(connection, sql.add(table, added))
    return max(until.values())


async def _folded_until(connection: Connection, sql: Statements) -> dict[str, int]:
    """Up to when each is folded. No fold begins between this look and the commit.

    Whoever locks several does so in the order of their names: else two wait for each other.
    """
    from sqlalchemy import select

    from aimux.storage.schema.ledger import folded

    await connection.exec_driver_sql(sql.folded, [(name, 0) for name in FOLDED])
    statement = select(folded.c.name, folded.c.until).order_by(folded.c.name).with_for_update(read=True)
    return {row.name: row.until for row in await connection.execute(statement)}
