"""SQLite in the state folder: the default, for one node and the commands beside it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
from typing import TYPE_CHECKING, Any

from aimux.storage.errors import Conflict, StorageError
from aimux.storage.migrations import HEAD, behind, upgrade

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from aimux.storage.engine import Heard

log = logging.getLogger(__name__)

LOOK_EVERY = 0.25
"""Seconds between two looks for what others wrote."""
BUSY_TIMEOUT = 10.0
"""How long to wait for another writer, in seconds."""


class SQLite:
    """`Engine` for a file: WAL, 0600 in a 0700 folder, every commit synced to the disk."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._made: AsyncEngine | None = None
        self._seen: dict[str, int] = {}

    async def look(self) -> bool:
        if not self._path.exists():
            return False
        version, self._seen = await asyncio.to_thread(self._inspect)
        if behind(version, self.name):
            await self.engine()
        return True

    def touched(self, topic: str) -> bool:
        return topic in self._seen

    async def engine(self) -> AsyncEngine:
        if self._made is None:
            await asyncio.to_thread(self._make_file)
            made = await asyncio.to_thread(_make_engine, self._path)
            try:
                await self._migrate(made)
            except BaseException:
                await made.dispose()
                raise
            self._made = made
        return self._made

    async def announce(self, connection: AsyncConnection, topics: Collection[str]) -> None:
        for topic in sorted(topics):
            result = await connection.exec_driver_sql(
                "INSERT INTO changes (topic, version) VALUES (?, 1) "
                "ON CONFLICT (topic) DO UPDATE SET version = version + 1 RETURNING version",
                (topic,),
            )
            # Commits come one after the other: whoever is called after this one sees all before it too.
            self._seen[topic] = result.scalar_one()

    async def watch(self, heard: Heard) -> None:
        connection: sqlite3.Connection | None = None
        last = 0
        try:
            while True:
                await asyncio.sleep(LOOK_EVERY)
                try:
                    if connection is None:
                        if not self._path.exists():
                            continue
                        connection = self._connect(timeout=0)
                    (version,) = connection.execute("PRAGMA data_version").fetchone()
                    if version == last:
                        continue
                    now = dict(connection.execute("SELECT topic, version FROM changes"))
                    last = version
                except sqlite3.Error as error:  # locked just now, or being made: the next look will tell
                    log.debug("can't look at %s: %s", self.name, error)
                    continue
                changed = [topic for topic, version in now.items() if version > self._seen.get(topic, 0)]
                self._seen |= now
                if changed:
                    heard(changed)
        finally:
            if connection is not None:
                connection.close()

    def explain(self, error: Exception) -> StorageError:
        from sqlalchemy.exc import DBAPIError, IntegrityError

        cause = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(error, IntegrityError):
            return Conflict(str(cause))
        return self._explain(cause)

    async def close(self) -> None:
        if self._made is not None:
            await self._made.dispose()
            self._made = None

    # --- opening -----------------------------------------------------------------------------------------------------

    def _connect(self, timeout: float = BUSY_TIMEOUT) -> sqlite3.Connection:
        return sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=rw", timeout=timeout, uri=True, isolation_level=None
        )

    def _inspect(self) -> tuple[str | None, dict[str, int]]:
        try:
            with contextlib.closing(self._connect()) as connection:
                tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
                if not tables:
                    return None, {}
                if "alembic_version" not in tables:
                    raise StorageError(f"{self.name} is a database, but not aimux's", remedy="move it away")
                (version,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
                seen = dict(connection.execute("SELECT topic, version FROM changes")) if version <= HEAD else {}
                return version, seen
        except sqlite3.Error as error:
            raise self._explain(error) from None

    def _make_file(self) -> None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # SQLite gives the files beside it the same mode.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise StorageError(f"can't open {self.name} ({error.strerror})") from None

    async def _migrate(self, engine: AsyncEngine) -> None:
        from sqlalchemy.exc import DBAPIError

        try:
            # The transaction is the lock: another process waits at its beginning, and finds nothing left to do.
            async with engine.execution_options(aimux_write=True).begin() as connection:
                tables = await connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'")
                version = None
                if tables.first():
                    found = await connection.exec_driver_sql("SELECT version_num FROM alembic_version")
                    version = found.scalar_one_or_none()
                if behind(version, self.name):
                    await connection.run_sync(upgrade)
        except DBAPIError as error:
            raise self.explain(error) from None

    def _explain(self, error: object) -> StorageError:
        return StorageError(f"{self.name}: {error}")


def _make_engine(path: Path) -> AsyncEngine:
    from sqlalchemy import event
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}", hide_parameters=True, connect_args={"timeout": BUSY_TIMEOUT}
    )

    @event.listens_for(engine.sync_engine, "connect")
    def opened(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver begins no transactions of its own
        cursor = connection.cursor()
        # FULL: a commit is on the disk before it is answered, also when the power fails. (NORMAL loses the last ones.)
        for setting in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            cursor.execute(f"PRAGMA {setting}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begun(connection: Any) -> None:
        # A transaction that reads first and writes later could find that somebody else wrote in between, and fail.
        write = connection.get_execution_options().get("aimux_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine
