"""Many rows in one statement, which costs SQLite half as much as one by one.

Beginning and ending a statement costs as much as writing a row of 25 columns; each bound value costs some 200
instructions, a text 800. So values that all rows of a statement share are bound once. None is the most expensive value,
because Python's sqlite3 looks for an adapter of it each time: among other values it is passed as "", which SQLite turns
into NULL.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import chain, compress
from operator import itemgetter, not_
from typing import TYPE_CHECKING, Any

from aimux.metering.rows import (
    CACHE_WRITE_1H,
    CONVERSATION,
    COST,
    DETAIL,
    ERROR,
    ESTIMATED,
    KEY,
    METHOD,
    NODE,
    PATH,
    REASONING,
    REQUEST_ID,
    SERVER_TOOLS,
    STATUS,
    TTFB,
    UPSTREAM_ID,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aimux.metering.rows import Values
    from aimux.storage.engine import Statement

    Columns = list[tuple[Any, ...]]

SIZES = (64, 8, 1)
"""Rows of a statement; for each size SQLite prepares and keeps another one."""
MOST_STATEMENTS = 64
"""Statements of this many rows that are kept: SQLite keeps 100 kB for each."""
ONCE, EACH, SOME = range(3)
"""The ways of a column in a statement's rows: the same for all, one for each, one for each or none."""
_MARKS = {EACH: "?", SOME: "NULLIF(?, '')"}
_TOLD = (METHOD, STATUS, ERROR, ESTIMATED, REQUEST_ID)
_USUAL = ("POST", 200, "", 0, None)
"""Their usual values."""
_NULLABLE = frozenset({CONVERSATION, TTFB, COST, REQUEST_ID, UPSTREAM_ID, DETAIL})
_RARE = (CACHE_WRITE_1H, REASONING, SERVER_TOOLS)
_ALIKE = (_TOLD, (NODE,), (CONVERSATION,), (PATH,), _RARE, (UPSTREAM_ID,), (DETAIL,))
"""Columns that many rows may share, group by group."""
_OF_FEW = tuple(SOME if place in _NULLABLE else EACH for place in range(KEY))


def inserting_requests(rows: Sequence[Values]) -> Iterator[Statement]:
    """What inserts all, on SQLite."""
    columns = _columns(rows)
    if len(rows) < SIZES[0] or _alike(columns, _TOLD):
        yield from _inserting(columns)
        return
    usual = [*map(_USUAL.__eq__, map(itemgetter(*_TOLD), rows))]
    for part in ([*compress(rows, usual)], [*compress(rows, map(not_, usual))]):
        if part:
            yield from _inserting(_columns(part))


def for_many(statement: str, rows: Sequence[tuple[Any, ...]]) -> Iterator[Statement]:
    """What does the same as `statement`, an INSERT of one row that binds each value, with each of `rows`, on SQLite."""
    one = f"({', '.join('?' * len(rows[0]))})"
    values = [*chain.from_iterable(rows)]
    for size, bound in _pieces(len(rows), len(rows[0]), values):
        yield statement.replace(one, ", ".join([one] * size)), bound


def _inserting(columns: Columns) -> Iterator[Statement]:
    count = len(columns[0])
    shape = _OF_FEW if count < SIZES[0] else _shape(columns)
    once, each = [], []
    for how, column in zip(shape, columns, strict=True):
        if how == ONCE:
            once.append(column[0])
        else:
            each.append(column if how == EACH else ["" if value is None else value for value in column])
    values = [*chain.from_iterable(zip(*each, strict=True))]
    for size, bound in _pieces(count, len(each), values, once):
        yield _statement(size, shape), bound


def _columns(rows: Sequence[Values]) -> Columns:
    return [*zip(*rows, strict=True)][:KEY]


def _pieces(
    count: int, width: int, values: list[Any], once: Sequence[Any] = ()
) -> Iterator[tuple[int, list[tuple[Any, ...]]]]:
    """The values of this many rows, one after the other: for each size of a statement, what it binds, repeatedly."""
    start = 0
    for size in SIZES:
        if piece := size * ((count - start) // size):
            places = range(start * width, (start + piece) * width, size * width)
            yield size, [(*once, *values[place : place + size * width]) for place in places]
            start += piece


def _shape(columns: Columns) -> tuple[int, ...]:
    shape = [SOME if place in _NULLABLE and not all(column) else EACH for place, column in enumerate(columns)]
    for places in _ALIKE:
        if _alike(columns, places):
            for place in places:
                shape[place] = ONCE
    return tuple(shape)


def _alike(columns: Columns, places: Sequence[int]) -> bool:
    return all(columns[place].count(columns[place][0]) == len(columns[place]) for place in places)


@lru_cache(MOST_STATEMENTS)
def _statement(size: int, shape: tuple[int, ...]) -> str:
    from aimux.storage.schema.ledger import requests

    columns = sorted(zip(shape, requests.c.keys(), strict=True), key=lambda column: column[0] != ONCE)
    names = ", ".join(f'"{name}"' for _, name in columns)
    # Numbered marks come first: a bare one takes the number after the largest so far.
    said = [f"?{number}" if how == ONCE else _MARKS[how] for number, (how, _) in enumerate(columns, 1)]
    one = f"({', '.join(said)})"
    return f"INSERT INTO requests ({names}) VALUES {', '.join([one] * size)}"  # noqa: S608 - names and marks of ours
