"""SQLite in the state folder: the default, for one node and the commands beside it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sqlite3
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any

from aimux import __version__
from aimux.storage import migrations, sqlite_file
from aimux.storage.errors import Conflict, StorageError
from aimux.storage.migrations import behind, schema_of, upgrade

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from aimux.storage.engine import Heard, Statement, Told

log = logging.getLogger(__name__)

LOOK_EVERY = 0.25
"""Seconds between two looks for what others wrote."""


class SQLite:
    """`Engine` for a file: WAL, 0600 in a 0700 folder, every commit synced to the disk."""

    failures: tuple[type[Exception], ...] = (ConnectionError, TimeoutError)

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.trouble: StorageError | None = None
        self.on_told: Told = lambda _node, _text: None
        self.writing = asyncio.Lock()  # SQLite allows one writer; waiting here is fair, and blocks no thread
        self._path = path
        self._made: AsyncEngine | None = None
        self._seen: dict[str, int] = {}
        self._plain: sqlite3.Connection | None = None
        self._plain_lock = threading.Lock()

    async def look(self) -> bool:
        if not sqlite_file.there(self._path):
            return False
        found = await asyncio.to_thread(sqlite_file.inspect, self._path)
        self._seen = found.changes
        if behind(found.schema, self.name):
            await self.engine()
        await asyncio.to_thread(sqlite_file.try_to_write, self._path)
        return True

    async def quick(self, queries: Sequence[str]) -> list[list[Mapping[str, Any]]] | None:
        if self._made is not None:
            return None
        return await asyncio.to_thread(sqlite_file.rows, self._path, queries)

    async def at_once(self, statements: Iterable[Statement]) -> bool:
        try:
            await asyncio.to_thread(self._execute, statements)
        except sqlite3.Error as error:
            raise self.explain(error) from None
        return True

    def _execute(self, statements: Iterable[Statement]) -> None:
        with self._plain_lock:  # one whose caller was cancelled goes on
            if self._plain is None:
                self._plain = sqlite_file.connect(self._path)
                _set_up(self._plain)
            self._plain.execute("BEGIN IMMEDIATE")
            with self._plain:  # commits, or rolls back
                for statement, rows in statements:
                    self._plain.executemany(statement, rows)

    def touched(self, topic: str) -> bool:
        return topic in self._seen

    async def engine(self) -> AsyncEngine:
        if self._made is None:
            await asyncio.to_thread(sqlite_file.make, self._path)
            made = await asyncio.to_thread(_make_engine, self._path)
            try:
                await self._migrate(made)
            except BaseException:
                await made.dispose()
                raise
            self._made = made
        return self._made

    async def announce(self, connection: AsyncConnection, topics: Collection[str]) -> dict[str, int]:
        versions = {}
        for topic in sorted(topics):
            result = await connection.exec_driver_sql(
                "INSERT INTO changes (topic, version) VALUES (?, 1) "
                "ON CONFLICT (topic) DO UPDATE SET version = version + 1 RETURNING version",
                (topic,),
            )
            versions[topic] = result.scalar_one()
        return versions

    def settle(self, receipt: dict[str, int], *, committed: bool) -> None:
        if committed:
            # Commits are serialized: a subscriber called after this one also sees all earlier ones.
            self._seen |= receipt

    async def watch(self, heard: Heard) -> None:
        """A look costs 3 µs, so it needs no thread (100 µs). It waits for the end of a write of our own, because
        `settle` first notes what is no news here."""
        connection: sqlite3.Connection | None = None
        file: tuple[int, int] | None = None
        last = 0
        try:
            while True:
                await asyncio.sleep(LOOK_EVERY)
                try:
                    info = self._path.stat()
                    if connection is None:
                        if not info.st_size:  # it is being made
                            continue
                        connection = sqlite_file.connect(self._path, timeout=0)
                        file = (info.st_dev, info.st_ino)
                    elif file != (info.st_dev, info.st_ino):
                        self._lost()
                    async with self.writing:
                        (version,) = connection.execute("PRAGMA data_version").fetchone()
                        if version == last:
                            continue
                        now = dict(connection.execute("SELECT topic, version FROM changes").fetchall())
                        last = version
                except FileNotFoundError:
                    if connection is not None:
                        self._lost()
                    continue
                except (OSError, sqlite3.Error) as error:  # being made, or locked: the next look will show
                    log.debug("can't look at %s: %s", self.name, error)
                    continue
                changed = [topic for topic, version in now.items() if version > self._seen.get(topic, 0)]
                self._seen |= now
                if changed:
                    heard(changed)
        finally:
            if connection is not None:
                connection.close()

    async def nodes(self, _connection: AsyncConnection) -> list[str]:
        return [f"{socket.gethostname()} {__version__}"]

    async def tell(self, _connection: AsyncConnection, _text: str) -> None:
        return None

    def lock(self, name: str, patience: float) -> AbstractAsyncContextManager[None]:
        raise StorageError(f"{self.name} has no locks between nodes")

    def explain(self, error: BaseException) -> StorageError:
        from sqlalchemy.exc import DBAPIError

        cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        if isinstance(cause, sqlite3.IntegrityError):
            return Conflict(str(cause))  # names the columns, not their values
        return sqlite_file.explain(self._path, cause)

    async def close(self) -> None:
        if self._made is not None:
            await self._made.dispose()
            self._made = None
        with self._plain_lock:
            if self._plain is not None:
                self._plain.close()
                self._plain = None

    def _lost(self) -> None:
        """The file was removed or replaced: what is written from now on is lost."""
        if self.trouble is None:
            self.trouble = StorageError(
                f"{self.name} was removed or replaced while aimux uses it", remedy="restart aimux"
            )
            log.error("%s", self.trouble)

    async def _migrate(self, engine: AsyncEngine) -> None:
        from sqlalchemy.exc import DBAPIError

        try:
            # The transaction is the lock: another process waits for it, and then finds nothing left to do.
            async with engine.execution_options(aimux_write=True).begin() as connection:
                found = await connection.run_sync(schema_of)
                if not behind(found, self.name):
                    return
                old, head = found.version, migrations.HEAD
                target = self._path.with_name(f"{self._path.name}.before-{head}")
                log.info("migrating %s from schema %s to %s; the copy %s is kept", self.name, old, head, target)
                await asyncio.to_thread(sqlite_file.copy, self._path, target)
                await asyncio.to_thread(import_module, "alembic.command")  # 0.2 s, which requests need not wait for
                await connection.run_sync(upgrade, self.name)
        except DBAPIError as error:
            raise self.explain(error) from None


class _Connection(sqlite3.Connection):
    """Closes itself: aiosqlite forgets a connection whose task is cancelled while it connects, and Python 3.13 warns of
    that."""

    def close(self) -> None:
        # A cancelled statement keeps a closed connection's transaction, and with it the write lock.
        with contextlib.suppress(sqlite3.Error):  # it is closed already
            self.rollback()
        super().close()

    def __del__(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # it was never opened
            super().close()  # it has done nothing that would have to be rolled back


def _set_up(connection: Any) -> None:
    # FULL: a commit is on the disk before it is answered, even if the power fails. (NORMAL loses the last ones.)
    for setting in ("synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {setting}")


def _make_engine(path: Path) -> AsyncEngine:
    from sqlalchemy import URL, event
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=str(path)),
        hide_parameters=True,
        connect_args={"timeout": sqlite_file.BUSY_TIMEOUT, "factory": _Connection, "check_same_thread": False},
    )

    @event.listens_for(engine.sync_engine, "connect")
    def opened(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver begins no transactions of its own
        cursor = connection.cursor()
        _set_up(cursor)
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begun(connection: Any) -> None:
        write = connection.get_execution_options().get("aimux_write", False)
        if connection.info.get("aimux_write") != write:  # the pragma has every statement prepared again
            connection.exec_driver_sql(f"PRAGMA query_only = {0 if write else 1}")  # a write here would notify nobody
            connection.info["aimux_write"] = write
        # A transaction that reads first and writes later could fail because somebody else wrote in between.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine
