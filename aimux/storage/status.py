"""What can be said about a database without changing it."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from aimux.storage import migrations, sqlite_file
from aimux.storage.database import FILE

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(slots=True)
class Status:
    """`schema` is None if there is no database yet; `tables`: numbers of rows; `size`: bytes."""

    engine: str
    where: str
    schema: str | None = None
    wanted: str = field(default_factory=lambda: migrations.HEAD)
    server: str = ""
    size: int = 0
    damage: str = ""
    read_only: bool = False
    """Of PostgreSQL, as a standby is."""
    may_create: bool = True
    """Whether the user may make tables in a PostgreSQL database."""
    tables: dict[str, int] = field(default_factory=dict)
    keys: dict[str, int] = field(default_factory=dict)
    """By the id of an encryption key: how many credential files are encrypted with it."""
    nodes: list[str] = field(default_factory=list)
    """Host and version of each node that uses a PostgreSQL database now."""

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


async def status(url: str | None, state_dir: Path) -> Status:
    """Look at everything, which may take a while if there is much. Raises StorageError."""
    if url is None:
        return await asyncio.to_thread(_sqlite, state_dir / FILE)
    return await _postgresql(url)


async def _postgresql(url: str) -> Status:
    from aimux.storage.locks import FAILURES
    from aimux.storage.postgresql import PostgreSQL, nodes
    from aimux.storage.schema import METADATA

    engine = PostgreSQL(url)
    found = Status("postgresql", engine.name)
    try:
        connection = await engine.connect(patient=True)
        try:
            found.nodes = await nodes(connection)
            found.server = str(connection.get_settings().server_version)
            found.size = await connection.fetchval("SELECT pg_database_size(current_database())")
            found.read_only = await connection.fetchval("SELECT current_setting('transaction_read_only') = 'on'")
            may = await connection.fetchval("SELECT has_schema_privilege(current_schema(), 'CREATE')")
            found.may_create = may is not False  # None: there is no schema to look at
            # Of ours alone: beside them lie other programs', and views of extensions that nobody may be able to read.
            # And not only those that the user may use, as information_schema has it: that looks like an empty database.
            names = await connection.fetch(
                "SELECT tablename FROM pg_tables"
                " WHERE schemaname = current_schema() AND tablename = ANY($1) ORDER BY 1",
                ["alembic_version", *METADATA.tables],
            )
            migrations.ours([name for (name,) in names], found.where)
            for (name,) in names:
                if name == "alembic_version":
                    found.schema = await connection.fetchval("SELECT version_num FROM alembic_version")
                else:
                    found.tables[name] = await connection.fetchval(f'SELECT count(*) FROM "{name}"')  # noqa: S608
            if "credentials" in found.tables:
                keys = await connection.fetch("SELECT key_id, count(*) FROM credentials GROUP BY 1 ORDER BY 1")
                found.keys = dict(map(tuple, keys))
        finally:
            connection.terminate()
    except FAILURES as error:
        raise engine.explain(error) from None
    return found


def _sqlite(path: Path) -> Status:
    found = Status("sqlite", str(path), server=sqlite3.sqlite_version)
    if not sqlite_file.there(path):
        return found
    found.size = sum(file.stat().st_size for file in (path, sqlite_file.ahead_of(path)) if file.exists())
    try:
        with sqlite_file.reading(path) as connection:
            found.damage = sqlite_file.check(connection)
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"):
                if name == "alembic_version":
                    (found.schema,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
                elif not name.startswith("sqlite_"):
                    (found.tables[name],) = connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()  # noqa: S608
    except sqlite3.Error as error:
        raise sqlite_file.explain(path, error) from None
    return found
