"""The ledger: every request's row in the database, at most half a second late, whatever happens to the database.

Rows go to the database in batches. A batch that is not committed within WAIT also goes to the spill file, and so does
everything after it until the database has taken all that waits there, in order. So a kill -9 loses at most what was
answered in the last second (in the database a row is as safe as a commit), and a stop loses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from aimux.background import end, keep_going
from aimux.metering.rollups import fold, prune
from aimux.metering.rows import ID, Row
from aimux.metering.spill import Spill, SpillFull
from aimux.metering.store import LedgerStore, prepare
from aimux.storage import StorageError, Unusable
from aimux.storage.times import now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
    from pathlib import Path

    from aimux.metering.calendar import Calendar
    from aimux.metering.flattener import Flattener
    from aimux.metering.record import RequestRecord
    from aimux.metering.rows import Values
    from aimux.storage import Database

log = logging.getLogger("aimux.metering")

EVERY = 0.3
"""Seconds between two batches …"""
WAIT = 0.2
"""… and how long a batch may take in the database before it is also put on the disk here."""
SILENT = 5.0
"""After so many seconds without the outcome of a batch, the log and `/ready` say so."""
AT_ONCE = 250
"""Up to this many records are made into rows on the event loop, in a millisecond: a thread may have to wait for an
import."""
RETRY = 1.0
"""Seconds between two attempts while the database is unavailable."""
FAILURES = 5
"""Attempts of one batch before searching for a row that the database never takes: it must not stop the rest."""
MOST_HELD = 50_000
"""Rows kept in memory while neither the database nor the disk takes them, 1 kB each."""
NEARLY_FULL = 0.8
MAINTAIN_EVERY = 60.0
BELIEVED = 600_000
"""Milliseconds by which the clock may have gone on between two times of maintenance, where requests are deleted by it:
one that is set far ahead for a while must not have all of them deleted."""
PATIENCE = 3.0
"""How long a reader waits for rows that are not written yet."""
LAST_CHANCE = 5.0
"""How long a stop waits for the database."""


class Ledger:
    """`record` is its sink; `start` begins to write, `close` ends it."""

    def __init__(
        self,
        database: Database,
        flattener: Flattener,
        calendar: Calendar,
        folder: Path,
        *,
        spill_limit: int,
        keep: float,
    ) -> None:
        """`folder`: of the spill files, `spill_limit` bytes at most. `keep`: seconds for which requests are kept."""
        self._database = database
        self._flattener = flattener
        self.calendar = calendar
        self.keep = keep
        self.store = LedgerStore(database, calendar)
        self._spill = Spill(folder, spill_limit)
        self.on_left: Callable[[Sequence[Row]], None] = lambda _rows: None
        """Called once with rows that an earlier process left on the disk and that are not in the database yet."""
        self._pending: list[RequestRecord] = []
        self._held: list[Values] = []
        """Rows neither in the database nor on the disk …"""
        self._refused = ""
        """… because of this; "": the disk works."""
        self._writing: asyncio.Task[None] | None = None
        self._began = 0.0
        """When."""
        self._warm = False
        """The database has taken something: until then everything is spilled first, because opening it can take
        seconds."""
        self._twice = False
        """Of what waits on the disk the database may have some: it was slow to take it."""
        self._failures = 0
        self._retry_at = 0.0
        self._away_since: float | None = None
        self._reason = ""
        self._lost = 0
        self._warned = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._turn = asyncio.Lock()
        self._stopping = asyncio.Event()

    def reconfigure(self, *, spill_limit: int, keep: float) -> None:
        """Take other settings, from now on."""
        self._spill.limit = spill_limit
        self.keep = keep

    def record(self, record: RequestRecord) -> None:
        """Take a request that is over.

        Left out are requests for no provider (looking at a dashboard uses nothing), those of strangers (who must not
        fill the disk), and those that aimux answered by itself without refusing: clients ask each minute how much of
        their limits is used, which uses nothing.
        """
        if record.provider and (record.attempts or (record.user and record.status != 200)):
            self._pending.append(record)

    async def start(self) -> None:
        """Write what an earlier process left, for at most PATIENCE. From then on until `close`: write batches, and fold
        and delete old rows."""
        await self.adopt()
        self._tasks = [asyncio.create_task(self._run()), keep_going("the ledger's upkeep", self._maintain)]
        await self.catch_up()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        following = loop.time() + EVERY
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(following):
                    await self._stopping.wait()
            following = loop.time() + EVERY  # what waits on the disk has until then
            try:
                await self.flush()
            except Exception as error:  # a fault of ours: it must not be the last time that anything is written
                self._complain("a fault in the ledger: %s", type(error).__name__, error)

    async def flush(self) -> None:
        """Write what was recorded so far, or put it on the disk while the database is unavailable."""
        async with self._turn:
            await self._flush()

    async def _flush(self) -> None:
        until = time.monotonic() + EVERY - WAIT
        if batch := self._pending[:]:
            few = len(batch) <= AT_ONCE
            rows = self._rows(batch) if few else await asyncio.to_thread(self._rows, batch)
            self._held = [*self._held, *rows]  # another list: a slow database may be taking the one before
            del self._pending[: len(batch)]  # not before: whoever called may have been cancelled
        free = (self._warm or self._refused) and self._writing is None and not self._spill.size
        if self._held and free:
            if await self._write(self.store.write(self._held, now())):
                self._held, self._refused = [], ""
            else:
                self._twice = True
        if self._held:
            await self._put_by()
        if self._writing is not None and self._writing.done():
            await self._outcome(self._writing)
        elif self._writing is not None and time.time() - self._began > SILENT:
            self._waits(self._began, "it has not answered for some seconds")
        await self._drain(until)

    @contextlib.asynccontextmanager
    async def still(self) -> AsyncIterator[Callable[[], list[Row] | None]]:
        """Write what was recorded so far, and nothing more until this ends. What it gives says what is not in the
        database yet; None: nobody knows, because the database takes too long or fails."""
        await self.catch_up()
        async with self._turn:
            await self._flush()
            yield self._unwritten

    def _unwritten(self) -> list[Row] | None:
        if self._held or self._spill.size or self._writing is not None:
            return None
        return [*map(Row, self._rows(self._pending))]

    async def rest(self) -> None:
        """Wait for the batch that is being written, whatever becomes of it; later ones are made anew."""
        await self.flush()
        if self._writing is not None:
            await asyncio.wait({self._writing})

    async def catch_up(self, seconds: float = PATIENCE) -> None:
        """Wait until what was recorded so far can be read, or the database takes too long or fails."""
        deadline = time.monotonic() + seconds
        await self.flush()
        while (self._spill.size or self._writing) and not self._failures and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
            await self.flush()

    async def close(self) -> None:
        """Write or spill what there is. If the database is unavailable, the spill file stays for the next start."""
        self._stopping.set()
        for task in self._tasks[1:]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(LAST_CHANCE + 1):  # a database that hangs
                await self.catch_up(LAST_CHANCE)
        except TimeoutError:
            pass
        except Exception:  # a fault of ours: what can be put on the disk is not lost
            log.exception("a fault in the ledger")
        if self._spill.size:
            log.warning("%d bytes of requests wait on the disk for the next start", self._spill.size)
        if self._pending or self._held:
            self._held = [*self._held, *self._rows(self._pending)]
            self._pending = []
            await self._put_by()
        if self._held:
            log.error("%d of the requests are lost: neither the database nor the disk takes them", len(self._held))
        await end(self._writing)
        self._spill.close()

    @property
    def waiting_bytes(self) -> int:
        """Of requests that wait on the disk for the database."""
        return self._spill.size

    @property
    def lost(self) -> int:
        """Requests since the start that will not be in it."""
        return self._lost

    def status(self) -> dict[str, Any] | None:
        """What `/ready` says about it: None while everything is written as it should be."""
        if self._away_since is None and not self._spill.size and not self._lost and not self._refused:
            return None
        told: dict[str, Any] = {
            "waiting_bytes": self._spill.size,
            "limit_bytes": self._spill.limit,
            "filled": round(self._spill.size / self._spill.limit, 3),
            "lost_requests": self._lost,
        }
        if self._refused:
            told["unsaved_requests"] = len(self._held)
            told["disk"] = self._refused
        if self._away_since is not None:
            told["away_seconds"] = round(time.time() - self._away_since)
            told["reason"] = self._reason
        return told

    def _rows(self, batch: Sequence[RequestRecord]) -> list[Values]:
        try:
            return self._flattener.rows(sorted(batch, key=attrgetter("id")))
        except Exception as error:  # a fault of ours: other requests must still be written
            if len(batch) > 1:
                return [row for record in batch for row in self._rows([record])]
            log.error("%s can't be written to the ledger", batch[0].request_id, exc_info=error)
            self._lost += 1
            return []

    # --- the database ------------------------------------------------------------------------------------------------

    async def _write(self, work: Coroutine[None, None, None]) -> bool:
        """Whether the database has the rows. False: it may still take them, or failed."""
        self._writing = task = asyncio.create_task(work)
        self._began = time.time()
        await asyncio.wait({task}, timeout=WAIT)
        return task.done() and await self._outcome(task)

    async def _outcome(self, task: asyncio.Task[None]) -> bool:
        self._writing = None
        error = task.exception()
        if error is None:
            if self._away_since is not None:
                log.info("the database takes requests again; %d bytes of them wait", self._spill.size)
            self._failures, self._away_since, self._warm = 0, None, True
            return True
        self._failures += 1
        self._retry_at = time.monotonic() + RETRY
        if isinstance(error, OSError):
            self._complain("what waits on the disk can't be read: %s", error.strerror)
            return False
        if not isinstance(error, StorageError):
            log.error("a fault in the ledger", exc_info=error)
        self._waits(time.time(), error.reason if isinstance(error, StorageError) else type(error).__name__)
        return False

    def _waits(self, since: float, reason: str) -> None:
        self._reason = reason
        if self._away_since is None:
            self._away_since = since
            log.warning("requests wait for the database: %s", reason)

    async def _drain(self, until: float) -> None:
        """Write some of what waits to the database, and go on until then."""
        while self._spill.size and self._writing is None and self._retry_at <= time.monotonic():
            if not await self._write(self._take()) or time.monotonic() >= until:
                return

    async def _take(self) -> None:
        """Move some of what waits from the disk to the database."""
        if rows := await asyncio.to_thread(self._waiting):
            untold = self._spill.untold()
            if untold or self._twice:
                rows = await self.store.missing(rows)
            if untold:
                self._spill.told()
                self.on_left([*map(Row, rows)])
            await (self._sift(rows) if self._failures >= FAILURES else self.store.write(rows, now()))
            await asyncio.to_thread(self._spill.written)
            self._twice = self._twice and self._spill.size > 0

    def _waiting(self) -> list[Values]:
        if not self._warm:
            prepare()
        # A price may have become known since.
        return [self._flattener.priced(row) for row in self._spill.read()]

    async def _sift(self, rows: Sequence[Values]) -> None:
        """If the database works but does not take this batch, one of its rows has to stay behind: halving finds
        which."""
        try:
            await self.store.write(rows, now())
        except Unusable:  # full or read-only, which a look would not show
            raise
        except Exception as error:  # a driver has its own error for what it can't pass on
            async with self._database.read() as connection:
                await connection.exec_driver_sql("SELECT 1")
            if len(rows) > 1:
                half = len(rows) // 2
                await self._sift(rows[:half])
                await self._sift(rows[half:])
                return
            self._lost += 1
            log.error("%s can't be written to the ledger: %s: %s", rows[0][ID], type(error).__name__, error)

    # --- the disk ----------------------------------------------------------------------------------------------------

    async def _put_by(self) -> None:
        try:
            await asyncio.to_thread(self._spill.append, self._held)
        except SpillFull:
            self._lost += len(self._held)
            self._held, self._refused = [], ""
            self._complain("%d requests are not in the ledger: what waits for the database is at its limit", self._lost)
        except OSError as error:
            if len(self._held) > MOST_HELD:
                self._lost += len(self._held) - MOST_HELD
                self._held = self._held[:MOST_HELD]
            self._refused = error.strerror or type(error).__name__
            self._complain("requests can't be put on the disk, and wait in memory: %s", self._refused)
        else:
            self._held, self._refused = [], ""
            if self._spill.size > NEARLY_FULL * self._spill.limit:
                self._complain("%d %% of `ledger.spill_limit` is used", 100 * self._spill.size // self._spill.limit)

    def _complain(self, message: str, what: object, error: Exception | None = None) -> None:
        if time.monotonic() - self._warned > 60:
            self._warned = time.monotonic()
            log.error(message, what, exc_info=error)

    # --- maintenance -------------------------------------------------------------------------------------------------

    async def upkeep(self, at: int, believed: int | None = None) -> None:
        """Fold what is over, as of that time (milliseconds), and delete what was kept long enough, as of `believed`
        (None: the same). Raises StorageError."""
        self.store.latest = max(self.store.latest, at)
        while await fold(self._database, self.calendar, at):
            pass
        before = (at if believed is None else believed) - int(self.keep * 1000)
        while await prune(self._database, self.calendar, before):  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # others want to write, too

    async def _maintain(self) -> None:
        problem, believed = "", now()
        while True:
            await asyncio.sleep(MAINTAIN_EVERY)
            believed = min(now(), believed + BELIEVED)
            await self.adopt()
            try:
                await self.upkeep(now(), believed)
            except StorageError as error:
                if str(error) != problem:
                    log.warning("the ledger's upkeep waits: %s", error)
                problem = str(error)
            else:
                problem = ""

    async def adopt(self) -> None:
        """Take over what other processes left."""
        try:
            async with self._turn:
                await asyncio.to_thread(self._spill.adopt)
        except OSError as error:
            self._complain("what waits on the disk can't be taken over: %s", f"{error.filename}: {error.strerror}")
