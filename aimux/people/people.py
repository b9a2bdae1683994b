"""The people of a running aimux: a snapshot that every request asks, kept up with the database behind it."""

from __future__ import annotations

import asyncio
import logging
import time
from bisect import bisect_right, insort
from typing import TYPE_CHECKING

from aimux.background import end, keep_going
from aimux.people import rows
from aimux.people.directory import Configured, Directory
from aimux.storage import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aimux.storage import Database

log = logging.getLogger(__name__)

TOPIC = "people"
LOOK_SECONDS = 2.0
"""How often the clock is checked: it may be set, and the loop's stands still while the machine sleeps."""
DAY = 86_400_000
RETRY_SECONDS = 1.0
"""How long to wait before a database that could not be read is asked again."""


class People:
    """`directory` is replaced as a whole; `on_change` is called after that, and when a token expires."""

    def __init__(self, database: Database, configured: Configured) -> None:
        self.database = database
        self.directory = Directory(configured)
        self.on_change: Callable[[], None] = lambda: None
        self._failing = ""
        """Why the database can't be read, as it was last logged."""
        self._reading = asyncio.Lock()
        self._stale = asyncio.Event()
        self._ends: list[int] = []
        """When tokens expire, in order, from a day ago on; some may have been revoked by then."""
        self._looked = _milliseconds()
        """When that was last checked, by a clock that may have been wrong."""
        self._end: asyncio.TimerHandle | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] = lambda: None

    async def start(self) -> None:
        """Read everybody, and keep up with changes from here on. Raises StorageError."""
        self._unsubscribe = self.database.subscribe(TOPIC, self._stale.set)
        if self.database.touched(TOPIC):
            await self.refresh()
        self._keeper = keep_going("keeping up with people", self._keep_up)

    async def close(self) -> None:
        self._unsubscribe()
        if self._end is not None:
            self._end.cancel()
        await end(self._keeper)

    def reconfigure(self, configured: Configured) -> None:
        """Take the people of another configuration. The caller begins the epoch."""
        self.directory = Directory(configured, self.directory.stored)

    async def refresh(self) -> None:
        """Update the snapshot from the database. Raises StorageError."""
        async with self._reading:
            read = await rows.read(self.database, self.directory.stored)
            if read is None:
                return
            stored, fresh = read
            self.directory = Directory(self.directory.configured, stored)
        for token in fresh:
            if token.expires_at is not None and token.revoked_at is None:
                insort(self._ends, token.expires_at)
        self._await_end()
        self.on_change()

    async def catch_up(self) -> bool:
        """The same, but if the database can't be read now, return False and try again later."""
        try:
            await self.refresh()
        except StorageError as error:
            if error.reason != self._failing:  # once a second would fill the log
                log.warning("people can't be read again, those that are known stay: %s", error)
            self._failing = error.reason
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self._stale.set)
            return False
        self._failing = ""
        return True

    async def _keep_up(self) -> None:
        while True:
            await self._stale.wait()
            self._stale.clear()
            await self.catch_up()

    def ends(self, at: int) -> None:
        """Call `on_change` then (milliseconds since 1970), for a token that the database doesn't know."""
        insort(self._ends, at)
        self._await_end()

    def _await_end(self) -> None:
        """Call `on_change` when the next token expires."""
        if self._end is not None:
            self._end.cancel()
            self._end = None
        if self._ends:
            following = bisect_right(self._ends, self._looked)
            left = self._ends[following] - _milliseconds() if following < len(self._ends) else DAY
            wait = min(max(0.0, left / 1000), LOOK_SECONDS)
            self._end = asyncio.get_running_loop().call_later(wait, self._look)

    def _look(self) -> None:
        before, self._looked = self._looked, _milliseconds()
        ended = bisect_right(self._ends, self._looked) > bisect_right(self._ends, before)
        del self._ends[: bisect_right(self._ends, self._looked - DAY)]
        self._await_end()
        if ended:
            self.on_change()


def _milliseconds() -> int:
    return int(time.time() * 1000)
