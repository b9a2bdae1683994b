"""Gives a price to requests that had none, in the ledger and in every sum that they are a part of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from aimux.metering.flattener import usage_of
from aimux.metering.rollups import id_of, note
from aimux.metering.rows import Key, Part, sums_of_parts
from aimux.metering.store import Statements, add_to_folded, execute
from aimux.storage.times import now

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sqlalchemy import Row

    from aimux.metering.calendar import Calendar
    from aimux.metering.prices import Prices
    from aimux.storage import Database
    from aimux.storage.engine import Connection

    Beside = Callable[[Connection, Sequence["Repriced"]], Awaitable[None]]
    """What else is changed in the transaction."""

STEP = 500
"""Requests in one transaction."""
TOPIC = "repriced"
DONE_AT = "ledger.repriced_at"
"""The row of `meta` that says when requests got a price last (milliseconds), where there are several nodes."""


class Repriced(NamedTuple):
    """A request that has a price now. `at` in milliseconds, `cost` in nanodollars; `output` is a part of `tokens`."""

    key: Key
    at: int
    tokens: int
    output: int
    cost: int


async def reprice(
    database: Database, calendar: Calendar, prices: Prices, since: int, beside: Beside | None = None
) -> int:
    """Price requests from `since` on (milliseconds) without a price, as far as there is one now. Returns how many.

    `beside`: where there are other nodes. Raises StorageError. What was priced by then stays.
    """
    done, after = 0, id_of(since)
    try:
        while after:
            after, priced = await _step(database, calendar, prices, after, beside)
            done += priced
    finally:
        if done and beside is not None:
            async with database.write(TOPIC) as connection:
                await note(connection, DONE_AT, str(now()))
    return done


async def _step(
    database: Database, calendar: Calendar, prices: Prices, after: str, beside: Beside | None
) -> tuple[str, int]:
    from sqlalchemy import bindparam, select, update

    from aimux.storage.schema.ledger import requests, usage_keys

    columns = requests.c
    unpriced = (
        select(requests, *(column for column in usage_keys.c if column is not usage_keys.c.id))
        .join(usage_keys, usage_keys.c.id == columns.key)
        .where(columns.id > after, columns.cost.is_(None))
        .order_by(columns.id)
        .limit(STEP)
        .with_for_update(of=requests)
    )
    async with database.write() as connection:
        rows = (await connection.execute(unpriced)).all()
        found = [(row, cost) for row in rows if (cost := _cost(prices, row)) is not None]
        if found:
            statement = update(requests).where(columns.id == bindparam("of")).values(cost=bindparam("to"))
            await connection.execute(statement, [{"of": row.id, "to": cost} for row, cost in found])
            await _add(connection, calendar, found)
            if beside is not None:
                await beside(connection, [_repriced(row, cost) for row, cost in found])
    return (rows[-1].id if len(rows) == STEP else ""), len(found)


def _cost(prices: Prices, row: Row[Any]) -> int | None:
    counts = (
        row.input,
        row.output,
        row.cache_read,
        row.cache_write,
        row.cache_write_1h,
        row.reasoning,
        row.server_tools,
    )
    usage = usage_of(row.model, counts, row.detail or {})
    return prices.cost(row.provider, row.account, row.model, usage, row.at)


def _repriced(row: Row[Any], cost: int) -> Repriced:
    told = row._mapping  # noqa: SLF001 - public, for all its name
    names = ("class" if name == "request_class" else name for name in Key._fields)
    key = Key(*(told[name] for name in names))
    tokens = row.input + row.output + row.cache_read + row.cache_write
    return Repriced(key._replace(groups=tuple(key.groups)), row.at, tokens, row.output, cost)


async def _add(connection: Connection, calendar: Calendar, found: list[tuple[Row[Any], int]]) -> None:
    """Take the request out of the unpriced ones and add its cost, wherever it is counted."""
    from aimux.storage.schema.ledger import MEASURES, usage_hours

    changed = dict.fromkeys(MEASURES, 0) | {"unpriced": -1}
    parts = [
        Part(row.at, row.key, row.served, row.conversation, row.user, tuple((changed | {"cost": cost}).values()))
        for row, cost in found
    ]
    sql = Statements(connection)
    await execute(connection, sql.add(usage_hours, sums_of_parts(parts, calendar)))
    await add_to_folded(connection, sql, calendar, parts)
