"""The archive that moves an installation: every row of every table, as lines of JSON in gzip (docs/database.md)."""

from __future__ import annotations

import base64
import gzip
import json
import os
import zlib
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aimux import __version__
from aimux.storage import migrations
from aimux.storage.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from sqlalchemy import Column, Table

    from aimux.storage.database import Database
    from aimux.storage.engine import Connection

FORMAT = 1
BATCH = 500
"""Rows that are read or written at once."""
TOPIC = "topic"
Row = dict[str, Any]
Line = tuple[str, Row]
"""A table's name (or another kind of line) and its content."""


# --- rows ------------------------------------------------------------------------------------------------------------


async def rows(database: Database, leave_out: frozenset[str] = frozenset()) -> AsyncIterator[Line]:
    """Every row of one state of the database, in an order in which they can be put back; their topics come first.
    Raises StorageError."""
    from aimux.storage.schema.base import changes

    async with database.read() as connection:
        for topic in (await connection.execute(changes.select().order_by(changes.c.topic))).mappings():
            yield TOPIC, {"name": topic["topic"]}
        for table in tables(leave_out):
            convert = [(column.name, _writer(column)) for column in table.columns]
            query = table.select().order_by(*table.primary_key.columns)
            async with connection.stream(query, execution_options={"yield_per": BATCH}) as found:
                async for rows in found.partitions():
                    for row in rows:
                        values = zip(convert, row, strict=True)
                        yield table.name, {name: write(value) for (name, write), value in values}


async def put_rows(database: Database, lines: Iterable[Line], topics: Iterable[str]) -> Counter[str]:
    """Put the rows of tables into an empty database, all or none. Returns how many of each. Raises StorageError."""
    known = {table.name: table for table in tables()}
    done: Counter[str] = Counter()
    async with database.write(*topics) as connection:
        for name, batch in _batches(lines):
            table = known[name]
            convert = {column.name: _reader(column) for column in table.columns}
            try:
                values = [{column: convert[column](value) for column, value in row.items()} for row in batch]
            except (KeyError, TypeError, ValueError) as error:
                raise StorageError(f"the archive's table {name} holds what does not belong there ({error})") from None
            await connection.execute(table.insert(), values)
            done[name] += len(values)
        await _count_on(connection, [known[name] for name in done])
    return done


async def occupied(database: Database) -> dict[str, int]:
    """The tables that are not empty, with their numbers of rows. Raises StorageError."""
    from sqlalchemy import func, select

    async with database.read() as connection:
        counts = {t.name: (await connection.execute(select(func.count()).select_from(t))).scalar() for t in tables()}
    return {name: count for name, count in counts.items() if count}


def tables(leave_out: frozenset[str] = frozenset()) -> list[Table]:
    """The tables that mean something in another database too; those that others refer to come first."""
    from aimux.storage.schema import METADATA

    return [t for t in METADATA.sorted_tables if not t.info.get("local") and t.name not in leave_out]


def _batches(lines: Iterable[Line]) -> Iterator[tuple[str, list[Row]]]:
    batch: list[Row] = []
    last = ""
    for name, row in lines:
        if batch and (name != last or len(batch) >= BATCH):
            yield last, batch
            batch = []
        last = name
        batch.append(row)
    if batch:
        yield last, batch


async def _count_on(connection: Connection, filled: Iterable[Table]) -> None:
    """PostgreSQL's counters do not notice imported numbers. (SQLite's do.)"""
    from sqlalchemy import func, select, text

    if connection.dialect.name != "postgresql":
        return
    for table in filled:
        column = table.autoincrement_column
        if column is not None:
            last = (await connection.execute(select(func.max(column)))).scalar()
            await connection.execute(
                text("SELECT setval(pg_get_serial_sequence(:table, :column), :last)"),
                {"table": table.name, "column": column.name, "last": last},
            )


def _writer(column: Column[Any]) -> Callable[[Any], Any]:
    from sqlalchemy import LargeBinary

    if isinstance(column.type, LargeBinary):
        return lambda value: None if value is None else base64.b64encode(value).decode()
    return lambda value: value


def _reader(column: Column[Any]) -> Callable[[Any], Any]:
    from sqlalchemy import LargeBinary

    if isinstance(column.type, LargeBinary):
        return lambda value: None if value is None else base64.b64decode(value)
    return lambda value: value


# --- the file --------------------------------------------------------------------------------------------------------


class Writer:
    """Writes an archive, which appears once it is complete."""

    def __init__(self, file: gzip.GzipFile, origin: str) -> None:
        self._file = file
        self.counts: Counter[str] = Counter()
        self._line({"aimux_export": FORMAT, "schema": migrations.HEAD, "version": __version__, "from": origin})

    def add(self, kind: str, row: Mapping[str, Any]) -> None:
        """One line. Raises OSError."""
        self._line({kind: row})
        self.counts[kind] += 1

    def end(self) -> None:
        """The last line: how many lines there are of each kind."""
        self._line({"end": dict(self.counts)})

    def _line(self, data: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")


@contextmanager
def writing(path: Path, origin: str) -> Iterator[Writer]:
    """A new archive, 0600: existing files are not overwritten. Raises StorageError."""
    part = path.with_name(f"{path.name}.part")
    try:
        if os.path.lexists(path):
            raise StorageError(f"{path} already exists", remedy="choose another name")
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(fd, "wb") as raw:
                os.fchmod(raw.fileno(), 0o600)
                with gzip.GzipFile(fileobj=raw, filename="", mode="wb", compresslevel=6) as file:
                    writer = Writer(file, origin)
                    yield writer
                    writer.end()
                raw.flush()
                os.fsync(raw.fileno())
            part.rename(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"can't write {path} ({error.strerror})") from None


def read(path: Path) -> Iterator[Line]:
    """The lines of a whole archive of this schema. Raises StorageError if it is anything else, or cut short."""
    counts: Counter[str] = Counter()
    ended = None
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            _check_head(path, json.loads(file.readline()))
            for line in file:
                [(kind, row)] = json.loads(line).items()
                if kind == "end":
                    ended = row
                    continue
                counts[kind] += 1
                yield kind, row
    except OSError as error:
        raise StorageError(
            f"can't read {path} ({error.strerror or 'it is not an archive of aimux db export'})"
        ) from None
    except (EOFError, zlib.error, ValueError, AttributeError):
        raise StorageError(f"{path} is not a complete archive of aimux db export", remedy="export once more") from None
    if ended != dict(counts):
        raise StorageError(f"{path} is cut short", remedy="export once more")


def _check_head(path: Path, head: Any) -> None:
    if not isinstance(head, dict) or head.get("aimux_export") != FORMAT:
        raise ValueError
    if head.get("schema") != migrations.HEAD:
        raise StorageError(
            f"{path} was written by aimux {head.get('version')}, whose schema is {head.get('schema')}; this is"
            f" {__version__} with {migrations.HEAD}",
            remedy="import it with that version, and bring aimux up to date afterwards",
        )
