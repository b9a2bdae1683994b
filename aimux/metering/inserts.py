"""Many rows in one statement, as SQLite takes them at half of what they cost one by one.

A statement costs as much to begin and end as a row of 25 columns to write, and each value that is bound some 400
instructions. None is the dearest value of all, as Python's sqlite3 looks for an adapter of it each time: texts say it
as "", of which SQLite makes NULL.
"""

from __future__ import annotations

from functools import cache
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from aimux.metering.rows import Row

    Values = Sequence[tuple[Any, ...]]

SIZES = (64, 8, 1)
"""Rows of a statement; each size is another one for SQLite to prepare, and to keep."""
_USUAL = {
    "method": "'POST'",
    "cache_write_1h": "0",
    "reasoning": "0",
    "server_tools": "0",
    "estimated": "0",
    "request_id": "NULL",
}
"""What most requests say alike, as it stands in the statement for 64 or 8 of which all do."""
_TEXTS = frozenset({"conversation", "request_id", "upstream_id", "detail"})
"""Those that may be NULL."""


async def insert_requests(connection: AsyncConnection, rows: Sequence[Row]) -> None:
    """Insert all, in their order, on SQLite. Raises IntegrityError where one is there."""
    for (size, usual), alike in groupby(_pieces([row[0] for row in rows]), _shape):
        say = _said_usually if usual else _said
        bound = [tuple(chain.from_iterable(map(say, piece))) for piece in alike]
        await connection.exec_driver_sql(_statement(size, usual), bound)


async def insert_many(connection: AsyncConnection, statement: str, rows: Values) -> None:
    """What `statement`, an INSERT of one row that binds each value, does with each of `rows`, on SQLite."""
    one = f"({', '.join('?' * len(rows[0]))})"
    for size, alike in groupby(_pieces(rows), len):
        bound = [tuple(chain.from_iterable(piece)) for piece in alike]
        await connection.exec_driver_sql(statement.replace(one, ", ".join([one] * size)), bound)


def _pieces(rows: Values) -> Iterator[Values]:
    start = 0
    for size in SIZES:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size


def _shape(piece: Values) -> tuple[int, bool]:
    """How many rows, and whether all say what `_USUAL` says."""
    return len(piece), len(piece) > 1 and all(map(_is_usual, piece))


def _is_usual(values: tuple[Any, ...]) -> bool:
    return values[5] == "POST" and not (values[17] or values[18] or values[19] or values[21] or values[22])


def _said_usually(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*values[:4], values[4] or "", *values[6:17], values[20], values[23] or "", values[24] or "")


def _said(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*values[:4], values[4] or "", *values[5:22], values[22] or "", values[23] or "", values[24] or "")


@cache
def _statement(size: int, usual: bool) -> str:
    from aimux.storage.schema.ledger import requests

    said = {column.name: "NULLIF(?, '')" if column.name in _TEXTS else "?" for column in requests.c}
    if usual:
        said |= _USUAL
    names = ", ".join(f'"{name}"' for name in said)
    one = f"({', '.join(said.values())})"
    return f"INSERT INTO requests ({names}) VALUES {', '.join([one] * size)}"  # noqa: S608 - names and marks of ours
