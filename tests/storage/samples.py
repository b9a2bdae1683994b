"""Rows for any table, by the types of its columns, so that nobody has to think of a new table here."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Column, Float, Integer, LargeBinary, Table, Text

from aimux.storage import Database, archive

Filled = dict[str, list[dict[str, Any]]]
"""What was put into each table, by its name."""
JSONS = [{"a": [1, None, 2.5, "ü"], "b": {}}, ["x"]]


def sample(column: Column[Any], number: int) -> Any:
    """A value of the column's type, another one for each number."""
    for kind, value in (
        (Boolean, number % 2 == 0),
        (JSON, JSONS[number % 2]),
        (LargeBinary, bytes([0, 255]) + str(number).encode()),
        (Float, number + 0.1),
        (Integer, 10 + number),
        (BigInteger, 2**52 + number),
        (Text, f"ü\0 {column.name} {number}".replace("\0", "'")),
    ):
        if isinstance(column.type, kind):
            return value
    raise AssertionError(f"{column} has a type that this test does not know: {column.type!r}")


def rows_of(table: Table, filled: Filled, count: int = 3) -> list[dict[str, Any]]:
    """Rows of a table, whose foreign keys lead to those in `filled`. One has nothing in whatever may be empty."""
    made = []
    for number in range(count):
        row: dict[str, Any] = {}
        for column in table.columns:
            if column.nullable and number == 2:
                row[column.name] = None
            elif column.foreign_keys:
                [key] = column.foreign_keys
                row[column.name] = filled[key.column.table.name][number][key.column.name]
            else:
                row[column.name] = sample(column, number)
        made.append(row)
    return made


async def fill(database: Database, leave_out: frozenset[str] = frozenset()) -> Filled:
    """Put three rows into every table that moves with an installation."""
    filled: Filled = {}
    async with database.write("people", "ledger") as connection:
        for table in archive.tables(leave_out):
            filled[table.name] = rows_of(table, filled)
            await connection.execute(table.insert(), filled[table.name])
    return filled
