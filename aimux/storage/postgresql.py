"""PostgreSQL, which several nodes can share."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import secrets
import socket
from typing import TYPE_CHECKING, Any, cast

import asyncpg

from aimux import __version__
from aimux.config.database import without_password
from aimux.storage.errors import Unusable
from aimux.storage.locks import FAILURES, Locks
from aimux.storage.migrations import HEAD, behind, create, schema_of, upgrade
from aimux.storage.postgresql_errors import READ_ONLY, Lent, explained
from aimux.storage.postgresql_hosts import Hosts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Sequence
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from aimux.storage.engine import Connection, Heard, Statement, Told
    from aimux.storage.errors import StorageError

log = logging.getLogger(__name__)

CHANNEL = "aimux"
TOLD_CHANNEL = "aimux_told"
"""The channel for what nodes send each other without storing it."""
NODE = "aimux node "
"""The prefix of the name of a node's listening connection; host and version follow. `nodes` reads it."""
PING_EVERY = 5.0
"""Seconds of silence after which the listening connection is checked: one that died silently would notice nothing."""
PAUSES = (0.25, 5.0)
"""Seconds before the first and the later tries to connect again."""
MIGRATION_LOCK = 0x61696D7578
"""The advisory lock for migrating ("aimux")."""
_SERVED_BY = "SELECT pg_backend_pid()"


class PostgreSQL:
    """`Engine` for a server."""

    failures: tuple[type[Exception], ...] = (ConnectionError, TimeoutError, asyncpg.InternalClientError)

    def __init__(self, url: str) -> None:
        self.name = without_password(url)
        self.trouble: StorageError | None = None
        self.on_told: Told = lambda _node, _text: None
        self.writing = contextlib.nullcontext()
        self.connect = Hosts(url).connect
        self._url = url
        self._made: AsyncEngine | None = None
        self._listening: asyncpg.Connection[Any] | None = None
        self._notices: asyncio.Queue[str] = asyncio.Queue()
        self._node = secrets.token_hex(6)
        self._count = itertools.count(1)
        self._unsettled: set[str] = set()
        self._locks = Locks(self.connect)

    async def look(self) -> bool:
        await self.prepare()
        try:
            self._listening = await self._listen()  # before anything is loaded, so that no change is missed in between
        except FAILURES as error:
            raise self.explain(error) from None
        return True

    async def quick(self, queries: Sequence[str]) -> None:
        return None

    async def at_once(self, statements: Iterable[Statement]) -> bool:
        return False

    def touched(self, topic: str) -> bool:
        return True

    async def prepare(self) -> None:
        if self._made is None:
            made = await asyncio.to_thread(self._make_engine)
            try:
                await self._migrate(made)
            except BaseException:
                await made.dispose()
                raise
            self._made = made

    @contextlib.asynccontextmanager
    async def transaction(self, *, write: bool) -> AsyncIterator[Connection]:
        assert self._made is not None
        async with self._made.execution_options(aimux_write=write).connect() as connection:
            await connection.begin()
            yield connection

    async def announce(self, connection: Connection, topics: Collection[str]) -> str:
        from sqlalchemy import text

        receipt = f"{self._node}.{next(self._count)}"
        # A row for each topic ever written to, as with SQLite. It never changes, so no writer waits for it.
        statement = text(
            "WITH touched AS (INSERT INTO changes (topic, version) VALUES (:topic, 1) ON CONFLICT DO NOTHING)"
            " SELECT pg_notify(:channel, :payload)"
        )
        for topic in sorted(topics):
            values = {"topic": topic, "channel": CHANNEL, "payload": f"{receipt} {topic}"}
            await connection.execute(statement, values)
        return receipt

    def settle(self, receipt: str, *, committed: bool) -> None:
        if not committed:
            self._unsettled.add(receipt)

    async def watch(self, heard: Heard) -> None:
        pause = PAUSES[0]
        while True:
            try:
                if self._listening is None:
                    self._listening = await self._listen()
                    await _require_writable(self._listening)
                    if self._made is not None:
                        await _replace_pool(self._made)  # what was opened meanwhile may lead to a standby
                    log.info("%s is there again", self.name)
                    self.trouble, pause = None, PAUSES[0]
                    self._unsettled.clear()
                    heard(None)  # notices sent meanwhile were missed
                await self._follow(self._listening, heard)
            except FAILURES as error:
                self._stop_listening()
                before, self.trouble = self.trouble, self.explain(error)
                if before is None or before.reason != self.trouble.reason:
                    log.warning("%s; trying again", self.trouble)
                await asyncio.sleep(pause)
                pause = min(PAUSES[1], pause * 2)

    async def nodes(self, connection: Connection) -> list[str]:
        return await nodes(await _driver(cast("AsyncConnection", connection)))

    async def tell(self, connection: Connection, text: str) -> None:
        from sqlalchemy import text as statement

        values = {"channel": TOLD_CHANNEL, "payload": f"{self._node} {text}"}
        await connection.execute(statement("SELECT pg_notify(:channel, :payload)"), values)

    def lock(self, name: str, patience: float) -> AbstractAsyncContextManager[None]:
        return self._locks.hold(name, patience, self.explain)

    def explain(self, error: BaseException) -> StorageError:
        return explained(self._url, self.name, error)

    async def close(self) -> None:
        self._stop_listening()
        self._locks.close()
        if self._made is not None:
            await self._made.dispose()
            self._made = None

    # --- listening ---------------------------------------------------------------------------------------------------

    async def _listen(self) -> asyncpg.Connection[Any]:
        connection = await self.connect(f"{NODE}{socket.gethostname()[:30]} {__version__}")
        try:
            await self._require_own(connection)
            self._notices = notices = asyncio.Queue[str]()
            connection.add_termination_listener(lambda _connection: notices.put_nowait(""))
            await connection.add_listener(
                CHANNEL, lambda _connection, _pid, _channel, payload: notices.put_nowait(str(payload))
            )
            await connection.add_listener(
                TOLD_CHANNEL, lambda _connection, _pid, _channel, payload: self._was_told(str(payload))
            )
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _require_own(self, connection: asyncpg.Connection[Any]) -> None:
        """A pooler may lend each transaction another connection to the server: what listens there hears nothing, and a
        lock is whoever's turn it is. Raises FAILURES."""
        served = await connection.fetchval(_SERVED_BY)
        if served == connection.get_server_pid():
            return  # poolers number their clients themselves
        other = await self.connect()
        try:
            async with other.transaction():  # it keeps what it was lent
                theirs, again = [await one.fetchval(_SERVED_BY) for one in (other, connection)]
                if theirs == served or again != served:
                    raise Lent
        finally:
            other.terminate()

    async def _follow(self, connection: asyncpg.Connection[Any], heard: Heard) -> None:
        """Until the connection is lost, which raises."""
        while True:
            try:
                async with asyncio.timeout(PING_EVERY):
                    payload = await self._notices.get()
            except TimeoutError:
                await _require_writable(connection)
                continue
            if not payload:
                raise ConnectionResetError("the connection was closed")
            receipt, _, topic = payload.partition(" ")
            # This node knows what it wrote, except if it could not tell whether that was committed.
            if not receipt.startswith(f"{self._node}.") or receipt in self._unsettled:
                heard([topic])

    def _was_told(self, payload: str) -> None:
        node, _, text = payload.partition(" ")
        if node != self._node:
            self.on_told(node, text)

    def _stop_listening(self) -> None:
        if self._listening is not None:
            self._listening.terminate()
            self._listening = None

    # --- opening -----------------------------------------------------------------------------------------------------

    def _make_engine(self) -> AsyncEngine:
        from sqlalchemy import event
        from sqlalchemy.ext.asyncio import create_async_engine

        async def opened() -> asyncpg.Connection[Any]:
            pool = engine.pool  # while it connects, that may be given up
            connection = await self.connect()
            connection.pool = pool
            return connection

        # asyncpg reads the URL itself: sslmode and Unix sockets mean what they mean to psql.
        engine = create_async_engine(
            "postgresql+asyncpg://", async_creator=opened, hide_parameters=True, pool_pre_ping=True
        )

        @event.listens_for(engine.sync_engine, "begin")
        def begun(connection: Any) -> None:
            if connection.get_execution_options().get("aimux_write") is False:
                connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")

        # `dispose` closes what lies in the pool. What is in use then would come back to a pool that nobody looks into
        # again, and stay open until Python collects it: at the latest, at the server's limit.
        @event.listens_for(engine.sync_engine, "checkin")
        def returned(connection: Any, record: Any) -> None:
            if connection is not None and connection.driver_connection.pool is not engine.pool:
                record.invalidate()

        @event.listens_for(engine.sync_engine, "handle_error")
        def failed(context: Any) -> None:
            # After a failover, connections may be left that lead to what is a standby now: they would do so for good.
            if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
                context.connection.invalidate()

        return engine

    async def _migrate(self, engine: AsyncEngine) -> None:
        from sqlalchemy import text
        from sqlalchemy.exc import DBAPIError
        from sqlalchemy.ext.asyncio import create_async_engine
        from sqlalchemy.pool import NullPool

        try:
            async with engine.connect() as connection:
                if not behind(await connection.run_sync(schema_of, self.name), self.name):
                    return
            # With many rows a new index takes minutes, and so does waiting for a node that makes it.
            patient = functools.partial(self.connect, patient=True)
            engine = create_async_engine("postgresql+asyncpg://", async_creator=patient, poolclass=NullPool)
            async with engine.begin() as connection:
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
                found = await connection.run_sync(schema_of, self.name)
                if not behind(found, self.name):
                    return
                if found.version is None:
                    await self._require_unicode(connection)
                    await connection.run_sync(create)
                else:
                    if others := await nodes(await _driver(connection)):
                        log.warning("%s is migrated while nodes use it: restart %s", self.name, ", ".join(others))
                    log.info("migrating %s from schema %s to %s", self.name, found.version, HEAD)
                    await connection.run_sync(upgrade, self.name)
        except (DBAPIError, *FAILURES) as error:
            raise self.explain(error) from None

    async def _require_unicode(self, connection: AsyncConnection) -> None:
        """What clients send is in any script. SQL_ASCII takes every byte as it comes."""
        encoding = await (await _driver(connection)).fetchval("SHOW server_encoding")
        if encoding not in {"UTF8", "SQL_ASCII"}:
            remedy = "make another: createdb --encoding=UTF8 --template=template0 NAME"
            raise Unusable(f"{self.name}: its encoding {encoding} can't hold every script", remedy=remedy)


async def _replace_pool(engine: AsyncEngine) -> None:
    from sqlalchemy.util import greenlet_spawn

    before = engine.pool
    await engine.dispose(close=False)  # first, so that nothing goes back to it that nobody would look for
    await greenlet_spawn(before.dispose)


async def nodes(connection: asyncpg.Connection[Any]) -> list[str]:
    """The nodes that listen on this database now, as "HOST VERSION"."""
    found = await connection.fetch(
        "SELECT application_name FROM pg_stat_activity"
        " WHERE datname = current_database() AND starts_with(application_name, $1) ORDER BY 1",
        NODE,
    )
    return [name.removeprefix(NODE) for (name,) in found]


async def _require_writable(connection: asyncpg.Connection[Any]) -> None:
    """Notices are heard where the others write: at a standby there would be none. Raises FAILURES."""
    if await connection.fetchval("SHOW transaction_read_only", timeout=PING_EVERY) == "on":
        raise asyncpg.ReadOnlySQLTransactionError("it is read-only")


async def _driver(connection: AsyncConnection) -> asyncpg.Connection[Any]:
    """The driver's own connection below SQLAlchemy's."""
    raw = await connection.get_raw_connection()
    assert raw.driver_connection is not None
    return raw.driver_connection
