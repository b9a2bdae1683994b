"""Locks that hold over all nodes: PostgreSQL's advisory locks, all of a node's on one connection."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import asyncpg

from aimux.storage.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

log = logging.getLogger(__name__)

FAILURES = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What a faulty connection raises; the last one if it is ended in the very moment in which it is used."""
ANSWER = 10.0
"""Seconds for the server to answer. It has nothing to wait for: one that does not is gone, and locks with it."""
PAUSES = (0.005, 0.25)
"""Seconds between the first and the later tries. A call that waits would keep the connection from the others."""
_TRY = "SELECT pg_try_advisory_lock($1)"


class Locks:
    """A connection costs the server some megabytes, so a node has one for all its locks. When it is lost, so are they:
    the holder of a lock has to write with compare-and-swap."""

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection[Any]]]) -> None:
        self._connect = connect
        self._connection: asyncpg.Connection[Any] | None = None
        self._talking = asyncio.Lock()
        # The server grants a lock again to its holder, so tasks exclude each other here.
        self._among_tasks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def hold(
        self, name: str, patience: float, explain: Callable[[BaseException], StorageError]
    ) -> AsyncIterator[None]:
        """Raises StorageError."""
        among_tasks = self._among_tasks.setdefault(name, asyncio.Lock())
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
        connection, mine = None, False
        try:
            try:
                async with asyncio.timeout(patience) as limit:
                    mine = await among_tasks.acquire()
                    connection = await self._take(key)
            except FAILURES as error:
                if limit.expired():
                    raise StorageError(f"{name} is in use by another node", remedy="is one of them stopped?") from None
                raise explain(error) from None
            yield
        finally:
            try:
                if connection is not None:
                    await asyncio.shield(self._release(connection, key))
            finally:
                if mine:
                    among_tasks.release()

    def close(self) -> None:
        """Release everything."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _take(self, key: int) -> asyncpg.Connection[Any]:
        pause = PAUSES[0]
        while True:
            async with self._talking:
                if self._connection is None or self._connection.is_closed():
                    self._connection = await self._connect()
                connection = self._connection
                trying = asyncio.ensure_future(connection.fetchval(_TRY, key, timeout=ANSWER))
                try:
                    if await asyncio.shield(trying):
                        return connection
                except asyncio.CancelledError:
                    # Cancelled between the query and its answer: the lock may be ours already. Who cancels again waits
                    # for it, too.
                    undoing = asyncio.ensure_future(self._undo(trying, connection, key))
                    while not undoing.done():
                        with suppress(asyncio.CancelledError):
                            await asyncio.wait([undoing])
                    raise
                except FAILURES:
                    connection.terminate()
                    raise
            await asyncio.sleep(pause)
            pause = min(PAUSES[1], pause * 1.5)

    async def _undo(self, trying: asyncio.Future[bool], connection: asyncpg.Connection[Any], key: int) -> None:
        try:
            ours = await trying
        except FAILURES:
            return
        if ours:
            await self._unlock(connection, key)

    async def _release(self, connection: asyncpg.Connection[Any], key: int) -> None:
        async with self._talking:
            await self._unlock(connection, key)

    async def _unlock(self, connection: asyncpg.Connection[Any], key: int) -> None:
        try:
            await connection.execute("SELECT pg_advisory_unlock($1)", key, timeout=ANSWER)
        except FAILURES as error:
            # The lock is gone with its connection, or will be now: so are the others on it.
            log.warning("the locks of this node were lost (%s)", error)
            connection.terminate()
