"""SQLite in the state folder: the default, for one node and the commands beside it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from aimux import __version__
from aimux.storage import migrations, sqlite_file
from aimux.storage.errors import Conflict, StorageError
from aimux.storage.migrations import behind, schema_of, upgrade
from aimux.threads import in_thread, in_thread_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    import sqlalchemy
    from sqlalchemy import CursorResult, Dialect, Executable, Row

    from aimux.storage.engine import Connection, Heard, Statement, Told

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

LOOK_EVERY = 0.25
"""Seconds between two looks for what others wrote."""
CONNECTIONS = 10
"""Transactions at a time; further ones wait for one of these to end."""
KEPT = 3
"""Of their connections, those that stay open."""

AHEAD = 16 << 20
"""Bytes of -wal that are kept to be written over. In ordinary use it has five million; while a long read (a report, an
export, somebody's own `sqlite3`) holds an old state it grows, and the disk would have that back at a restart only."""


class SQLite:
    """`Engine` for a file: WAL, 0600 in a 0700 folder, every commit synced to the disk."""

    failures: tuple[type[Exception], ...] = ()

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.trouble: StorageError | None = None
        self.on_told: Told = lambda _node, _text: None
        self.writing = asyncio.Lock()  # SQLite allows one writer; waiting here is fair, and blocks no thread
        self._path = path
        self._made: sqlalchemy.Engine | None = None
        self._free = asyncio.Semaphore(CONNECTIONS)  # waiting in the engine's own pool would take a thread
        # Of its own: reports that take long must not keep credentials from being saved, which asyncio's few threads do.
        self._threads = ThreadPoolExecutor(CONNECTIONS, "sqlite")
        self._seen: dict[str, int] = {}
        self._plain: sqlite3.Connection | None = None
        self._plain_lock = threading.Lock()

    async def look(self) -> bool:
        if not sqlite_file.there(self._path):
            return False
        found = await asyncio.to_thread(sqlite_file.inspect, self._path)
        self._seen = found.changes
        if behind(found.schema, self.name):
            await self.prepare()
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
                plain = sqlite_file.connect(self._path)
                _set_up(plain)
                self._plain = plain
            self._plain.execute("BEGIN IMMEDIATE")
            with self._plain:  # commits, or rolls back
                for statement, rows in statements:
                    self._plain.executemany(statement, rows)

    def touched(self, topic: str) -> bool:
        return topic in self._seen

    async def prepare(self) -> None:
        if self._made is None:
            await in_thread(self._make)

    @contextlib.asynccontextmanager
    async def transaction(self, *, write: bool) -> AsyncIterator[Connection]:
        assert self._made is not None
        async with self._free:
            connection = InThreads(self._made.execution_options(aimux_write=write), self._threads)
            try:
                await in_thread_of(self._threads, connection.begin)
                yield connection
            finally:
                await in_thread_of(self._threads, connection.close)

    async def announce(self, connection: Connection, topics: Collection[str]) -> dict[str, int]:
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

    async def nodes(self, _connection: Connection) -> list[str]:
        return [f"{socket.gethostname()} {__version__}"]

    async def tell(self, _connection: Connection, _text: str) -> None:
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
            await in_thread(self._made.dispose)
            self._made = None
        self._threads.shutdown(wait=False)
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

    def _make(self) -> None:
        from sqlalchemy.exc import DBAPIError

        sqlite_file.make(self._path)
        engine = _make_engine(self._path)
        try:
            # The transaction is the lock: another process waits for it, and then finds nothing left to do.
            with engine.execution_options(aimux_write=True).begin() as connection:
                self._migrate(connection)
        except BaseException as error:
            engine.dispose()
            if isinstance(error, DBAPIError):
                raise self.explain(error) from None
            raise
        self._made = engine  # whoever waited for it may have been cancelled, but it has to be closed

    def _migrate(self, connection: sqlalchemy.Connection) -> None:
        found = schema_of(connection, self.name)
        if behind(found, self.name):
            old, head = found.version, migrations.HEAD
            target = self._path.with_name(f"{self._path.name}.before-{head}")
            log.info("migrating %s from schema %s to %s; the copy %s is kept", self.name, old, head, target)
            sqlite_file.copy(self._path, target)
            upgrade(connection, self.name)


class InThreads:
    """`Connection` over one of SQLAlchemy's, whose every statement a thread executes.

    `sqlalchemy.ext.asyncio` would do the same, and keep 9 MB for the ORM that it imports.
    """

    def __init__(self, engine: sqlalchemy.Engine, threads: ThreadPoolExecutor) -> None:
        self._engine = engine
        self._threads = threads
        self.dialect: Dialect = engine.dialect
        self._connection: sqlalchemy.Connection | None = None

    def begin(self) -> None:
        """Blocks, as does `close`."""
        self._connection = self._engine.connect()
        self._connection.begin()

    def close(self) -> None:
        """Also where `begin` failed or was cancelled."""
        if self._connection is not None:
            self._connection.close()

    async def execute(self, statement: Executable, parameters: Any = None) -> CursorResult[*tuple[Any, ...]]:
        return await self.run_sync(lambda connection: _whole(connection.execute(statement, parameters)))

    async def exec_driver_sql(self, statement: str, parameters: Any = None) -> CursorResult[*tuple[Any, ...]]:
        return await self.run_sync(lambda connection: _whole(connection.exec_driver_sql(statement, parameters)))

    @contextlib.asynccontextmanager
    async def stream(self, statement: Executable, *, execution_options: Mapping[str, Any]) -> AsyncIterator[_Stream]:
        options = dict(execution_options)
        # Closed also where its beginning was cancelled: what is not read to the end keeps the connection, which others
        # use after this, in the state that it reads.
        begun: list[CursorResult[*tuple[Any, ...]]] = []

        def begin(connection: sqlalchemy.Connection) -> None:
            begun.append(connection.execute(statement, execution_options=options))

        try:
            await self.run_sync(begin)
            yield _Stream(begun[0], options["yield_per"], self._threads)
        finally:
            for result in begun:
                await in_thread_of(self._threads, result.close)

    async def run_sync(
        self, function: Callable[Concatenate[sqlalchemy.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        assert self._connection is not None
        return await in_thread_of(self._threads, function, self._connection, *args, **kwargs)

    async def commit(self) -> None:
        await self.run_sync(lambda connection: connection.commit())


class _Stream:
    def __init__(self, result: CursorResult[*tuple[Any, ...]], size: int, threads: ThreadPoolExecutor) -> None:
        self._next = partial(result.fetchmany, size)
        self._threads = threads

    async def partitions(self) -> AsyncIterator[Sequence[Row[*tuple[Any, ...]]]]:
        while rows := await in_thread_of(self._threads, self._next):
            yield rows


def _whole(result: CursorResult[*tuple[Any, ...]]) -> CursorResult[*tuple[Any, ...]]:
    """With its rows in memory: SQLite would go on searching as they are read."""
    return cast("CursorResult[*tuple[Any, ...]]", result.freeze()()) if result.returns_rows else result


def _set_up(connection: Any) -> None:
    """Or close it: one that is locked can't be."""
    try:
        # A commit is on the disk before it is answered, even if the power fails. (NORMAL loses the last ones.)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {AHEAD}")
    except BaseException:
        connection.close()
        raise


def _make_engine(path: Path) -> sqlalchemy.Engine:
    from sqlalchemy import URL, create_engine, event

    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        hide_parameters=True,
        pool_size=KEPT,
        max_overflow=CONNECTIONS - KEPT,
        connect_args={"timeout": sqlite_file.BUSY_TIMEOUT, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def opened(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver begins no transactions of its own
        _set_up(connection)

    @event.listens_for(engine, "begin")
    def begun(connection: Any) -> None:
        write = connection.get_execution_options().get("aimux_write", False)
        if connection.info.get("aimux_write") != write:  # the pragma has every statement prepared again
            connection.exec_driver_sql(f"PRAGMA query_only = {0 if write else 1}")  # a write here would notify nobody
            connection.info["aimux_write"] = write
        # A transaction that reads first and writes later could fail because somebody else wrote in between.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine
