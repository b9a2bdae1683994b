"""The database as other parts see it: read, write, and be notified of what others wrote."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aimux.background import end, keep_going
from aimux.storage.errors import Conflict, StorageError
from aimux.storage.sqlite import SQLite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from aimux.storage.engine import Connection, Engine, Statement, Told

log = logging.getLogger(__name__)

FILE = "aimux.db"
MOST_TOLD = 7_900
"""Bytes that `Database.tell` takes: PostgreSQL's notices hold 8,000."""
FULL_LOOK = 30.0
"""Seconds after which every subscriber looks again, even without a notice: a lost one costs no more than this."""


@dataclass(frozen=True, slots=True)
class Place:
    """The arguments of `Database.open`, for another process. `url` may hold a password."""

    url: str | None = field(repr=False)
    state_dir: Path


class Database:
    """One installation's database. Made by `open`; everything on one event loop.

    Opening SQLite reads little and imports no SQLAlchemy; the first `read` or `write` does, and makes the file if there
    is none.
    """

    def __init__(self, engine: Engine, place: Place) -> None:
        self._engine = engine
        self.place = place
        self._preparing = asyncio.Lock()
        self._subscribers: dict[str, list[Callable[[], None]]] = {}
        self._hearers: list[Told] = []
        engine.on_told = self._was_told
        self._failed: StorageError | None = None
        self._refuses_writes = False
        """As on a full disk: that it can be read then does not mean that it has recovered."""
        self._exists = False
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def open(cls, url: str | None, state_dir: Path, *, full_look: float = FULL_LOOK) -> Database:
        """`url`: `postgresql://…`, or None for SQLite at `{state_dir}/aimux.db`. Migrates an older schema.

        Raises StorageError if the database is damaged, unwritable, newer than this program or can't be reached.
        """
        database = cls(_engine(url, Path(state_dir)), Place(url, Path(state_dir)))
        try:
            database._exists = await database._engine.look()
        except BaseException:
            await database._engine.close()
            raise
        database._tasks = [
            keep_going("watching the database", lambda: database._engine.watch(database._heard)),
            keep_going("looking at the database again", lambda: database._look_again(full_look)),
        ]
        return database

    @property
    def name(self) -> str:
        """Where the database is, fit to be shown: a path, or an address without the password."""
        return self._engine.name

    @property
    def trouble(self) -> StorageError | None:
        """What is wrong now: why the last read or write failed, or why changes of others are not noticed."""
        return self._engine.trouble or self._failed

    def touched(self, topic: str) -> bool:
        """Whether anything of the topic was ever written. False saves reading it, and with that SQLAlchemy's import: a
        subscriber is notified of the first write."""
        return self._engine.touched(topic)

    async def quick(self, queries: Sequence[str]) -> list[list[Mapping[str, Any]]] | None:
        """The rows of each query, all of one state, as the driver has them (JSON is text, a boolean 0 or 1).

        For a start: SQLAlchemy's import is a third of its CPU time. None: this engine needs it anyway, so use `read`.
        Raises StorageError.
        """
        return await self._engine.quick(queries)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Connection]:
        """A connection whose statements see one and the same state. Raises StorageError."""
        async with self._connected(write=False) as connection:
            yield connection

    @asynccontextmanager
    async def write(self, *topics: str) -> AsyncIterator[Connection]:
        """One transaction: committed at the end, rolled back by an exception. Raises StorageError, Conflict.

        After the commit, the subscribers of the topics are called, here before this returns and on every other node.
        """
        receipt, committed = None, False
        try:
            async with self._engine.writing, self._connected(write=True) as connection:
                yield connection
                receipt = await self._engine.announce(connection, topics)
            committed = True
        finally:
            # A commit that was cancelled or lost its connection may have succeeded nevertheless.
            if receipt is not None:
                self._engine.settle(receipt, committed=committed)
                self._heard(topics)

    async def at_once(self, statements: Iterable[Statement]) -> bool:
        """One transaction of statements in the driver's own words, of which nobody is told. False: only `write` can.

        SQLite has a thread do all of it, the making of the statements too, where `write` waits for a thread at each of
        its steps: twelve rows of the ledger take 0.6 ms of CPU and not 2. Raises StorageError, Conflict.
        """
        await self._ready()
        try:
            async with self._engine.writing:
                done = await self._engine.at_once(statements)
        except StorageError as error:
            if not isinstance(error, Conflict):
                self._note(error)
                self._refuses_writes = True
            raise
        if done:
            self._recovered()
        return done

    def lock(self, name: str, *, patience: float = 90.0) -> AbstractAsyncContextManager[None]:
        """Exclusive over all tasks and nodes while it is held; a node that dies or loses the database releases it.

        Raises StorageError after `patience` seconds, and with SQLite, which has no other nodes.
        """
        return self._engine.lock(name, patience)

    async def nodes(self) -> list[str]:
        """The nodes that use the database now, as "HOST VERSION", including this one. Raises StorageError."""
        async with self.read() as connection:
            return await self._engine.nodes(connection)

    def subscribe(self, topic: str, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` on this loop after each change of the topic, and now and then without one.

        It gets no data: it has to read what it needs. Returns a function that ends the subscription.
        """
        self._subscribers.setdefault(topic, []).append(callback)
        return lambda: self._subscribers[topic].remove(callback)

    async def tell(self, text: str) -> None:
        """Send the other nodes something that is not stored: at most MOST_TOLD bytes. Raises StorageError.

        With SQLite there is nobody to hear it.
        """
        # A notice is no write: a standby takes it, which must not look as if writes were taken again.
        async with self._connected(write=False) as connection:
            await self._engine.tell(connection, text)

    def hear(self, callback: Told) -> None:
        """Call `callback` on this loop with what other nodes send, and an id of the sending process: with all of it, of
        every kind."""
        self._hearers.append(callback)

    async def close(self) -> None:
        """Stop listening and close every connection."""
        await end(*self._tasks)
        await self._engine.close()

    @asynccontextmanager
    async def _connected(self, *, write: bool) -> AsyncIterator[Connection]:
        await self._ready()
        from sqlalchemy.exc import DBAPIError, SQLAlchemyError  # loaded by now

        failures: tuple[type[Exception], ...] = (SQLAlchemyError, *self._engine.failures)
        async with AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(self._engine.transaction(write=write))
            except Exception as error:  # drivers pass on whatever a socket or a file raises
                raise self._explained(error) from None
            try:
                yield connection  # an exception rolls back when the connection is returned
                await connection.commit()
            except failures as error:
                refused = write and isinstance(error, DBAPIError) and not error.connection_invalidated
                raise self._explained(error, refused=refused) from None
        # Not while a server is known to be read-only: a transaction that finds nothing to write succeeds there.
        if self._engine.trouble is None and (write or not self._refuses_writes):
            self._recovered()

    async def _ready(self) -> None:
        async with self._preparing:
            try:
                await self._engine.prepare()
            except StorageError as error:
                self._note(error)
                raise
            self._exists = True

    def _explained(self, error: Exception, *, refused: bool = False) -> StorageError:
        explained = self._engine.explain(error)
        if not isinstance(explained, Conflict):
            self._note(explained)
            self._refuses_writes |= refused
        return explained

    def _note(self, error: StorageError) -> None:
        if self._failed is None:
            log.warning("%s", error)
        self._failed = error

    def _recovered(self) -> None:
        if self._failed is not None:
            log.info("%s works again", self.name)
        self._failed, self._refuses_writes = None, False

    def _heard(self, topics: Collection[str] | None) -> None:
        self._exists = True
        for topic in list(self._subscribers) if topics is None else topics:
            for callback in list(self._subscribers.get(topic, ())):
                try:
                    callback()
                except Exception:  # the others have to be notified, too
                    log.exception("a subscriber of %r failed", topic)

    def _was_told(self, node: str, text: str) -> None:
        for callback in self._hearers:
            callback(node, text)

    async def _look_again(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            if self._exists:
                self._heard(None)


def _engine(url: str | None, state_dir: Path) -> Engine:
    if url is None:
        return SQLite(state_dir / FILE)
    if url.startswith(("postgresql://", "postgres://")):
        from aimux.storage.postgresql import PostgreSQL  # imports asyncpg, which users of SQLite need not have

        return PostgreSQL(url)
    raise StorageError("the database's URL is of no known kind", remedy="write postgresql://user@host/name")
