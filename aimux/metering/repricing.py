"""Gives a price to requests that had none, in the ledger and in every sum that they are a part of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aimux.metering.flattener import usage_of
from aimux.metering.rollups import id_of
from aimux.metering.rows import Part, sums_of_parts
from aimux.metering.store import Statements, add_to_folded, execute

if TYPE_CHECKING:
    from sqlalchemy import Row

    from aimux.metering.calendar import Calendar
    from aimux.metering.prices import Prices
    from aimux.storage import Database
    from aimux.storage.engine import Connection

STEP = 500
"""Requests in one transaction."""


async def reprice(database: Database, calendar: Calendar, prices: Prices, since: int) -> int:
    """Price requests from `since` on (milliseconds) without a price, as far as there is one now. Returns how many.

    Raises StorageError. What was priced by then stays.
    """
    done, after = 0, id_of(since)
    while after:
        after, priced = await _step(database, calendar, prices, after)
        done += priced
    return done


async def _step(database: Database, calendar: Calendar, prices: Prices, after: str) -> tuple[str, int]:
    from sqlalchemy import bindparam, select, update

    from aimux.storage.schema.ledger import requests, usage_keys

    columns = requests.c
    keys = usage_keys.c
    unpriced = (
        select(requests, keys.served, keys.user, keys.provider, keys.account, keys.model)
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


async def _add(connection: Connection, calendar: Calendar, found: list[tuple[Row[Any], int]]) -> None:
    """Take the request out of the unpriced ones and add its cost, wherever it is counted."""
    from aimux.storage.schema.ledger import MEASURES, usage_hours

    none = dict.fromkeys(MEASURES, 0)
    parts = [
        Part(row.at, row.key, row.served, row.conversation, row.user, tuple((none | changed).values()))
        for row, cost in found
        for changed in ({"unpriced": -1, "cost": cost},)
    ]
    sql = Statements(connection)
    await execute(connection, sql.add(usage_hours, sums_of_parts(parts, calendar)))
    await add_to_folded(connection, sql, calendar, parts)
