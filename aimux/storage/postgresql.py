"""PostgreSQL, which several nodes can share."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import asyncpg

from aimux.storage.errors import Conflict, StorageError
from aimux.storage.migrations import behind, upgrade

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from aimux.storage.engine import Heard

log = logging.getLogger(__name__)

CHANNEL = "aimux"
CONNECT_TIMEOUT = 10.0
COMMAND_TIMEOUT = 60.0
PING_EVERY = 5.0
"""Seconds of silence after which the listening connection is tried: one that died without a word would hear nothing."""
MIGRATION_LOCK = 0x61696D7578
"""The advisory lock of whoever migrates ("aimux")."""


class PostgreSQL:
    """`Engine` for a server."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.name = _shown(url)
        self._made: AsyncEngine | None = None
        self._node = secrets.token_hex(6)
        self._count = 0
        self._announced: set[str] = set()

    async def look(self) -> bool:
        await self.engine()
        return True

    def touched(self, topic: str) -> bool:
        return True

    async def engine(self) -> AsyncEngine:
        if self._made is None:
            made = await asyncio.to_thread(self._make_engine)
            try:
                await self._migrate(made)
            except BaseException:
                await made.dispose()
                raise
            self._made = made
        return self._made

    async def announce(self, connection: AsyncConnection, topics: Collection[str]) -> None:
        from sqlalchemy import text

        for topic in sorted(topics):
            await connection.execute(text("SELECT pg_notify(:c, :t)"), {"c": CHANNEL, "t": f"{self._node} {topic}"})

    async def watch(self, heard: Heard) -> None:
        pause = 0.25
        while True:
            try:
                connection = await self._connect()
            except (OSError, asyncpg.PostgresError, TimeoutError) as error:
                log.warning("%s can't be reached (%s); trying again", self.name, error)
                await asyncio.sleep(pause)
                pause = min(5.0, pause * 2)
                continue
            pause = 0.25
            try:
                await self._listen(connection, heard)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                log.warning("the connection to %s was lost (%s)", self.name, error)
            finally:
                connection.terminate()

    async def _listen(self, connection: asyncpg.Connection[Any], heard: Heard) -> None:
        def notice(_connection: object, _pid: int, _channel: str, payload: object) -> None:
            node, _, topic = str(payload).partition(" ")
            if node != self._node:
                heard([topic])

        await connection.add_listener(CHANNEL, notice)
        heard(None)  # whatever was said before is lost
        while True:
            await asyncio.sleep(PING_EVERY)
            await connection.execute("SELECT 1")

    def explain(self, error: Exception) -> StorageError:
        from sqlalchemy.exc import DBAPIError, IntegrityError

        cause = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(error, IntegrityError):
            return Conflict(str(cause).partition("\n")[0])
        return StorageError(f"{self.name}: {cause}")

    async def close(self) -> None:
        if self._made is not None:
            await self._made.dispose()
            self._made = None

    # --- opening -----------------------------------------------------------------------------------------------------

    async def _connect(self) -> asyncpg.Connection[Any]:
        return await asyncpg.connect(self._url, timeout=CONNECT_TIMEOUT, command_timeout=COMMAND_TIMEOUT)

    def _make_engine(self) -> AsyncEngine:
        from sqlalchemy.ext.asyncio import create_async_engine

        # asyncpg reads the URL itself: sslmode, several hosts and Unix sockets mean what they mean to psql.
        return create_async_engine(
            "postgresql+asyncpg://", async_creator=self._connect, hide_parameters=True, pool_pre_ping=True
        )

    async def _migrate(self, engine: AsyncEngine) -> None:
        from sqlalchemy import text
        from sqlalchemy.exc import DBAPIError

        try:
            async with engine.begin() as connection:
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
                version = None
                if (await connection.execute(text("SELECT to_regclass('alembic_version')"))).scalar_one():
                    version = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar()
                if behind(version, self.name):
                    await connection.run_sync(upgrade)
        except (DBAPIError, asyncpg.PostgresError, OSError, TimeoutError) as error:
            raise self.explain(error) from None


def _shown(url: str) -> str:
    parts = urlsplit(url)
    user, host = parts.username or "", (parts.netloc.rpartition("@")[2])
    return f"postgresql://{user}{'@' if user else ''}{host}{parts.path}"
