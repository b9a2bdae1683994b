"""The memory of what users keep with the vendors, in the database: for the next start, and for other nodes.

Written every second. What a kill in between loses is in nobody's lists, and whoever can name it may use it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING

from aimux.background import end, keep_going
from aimux.gateway.deferred_usage import ALL_TOLD
from aimux.gateway.deposits import MOST, Deposits
from aimux.storage import StorageError
from aimux.storage.times import now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import Row, Select

    from aimux.gateway.deferred_usage import Claim
    from aimux.gateway.deposits import Key
    from aimux.metering.record import RequestRecord
    from aimux.storage import Database

log = logging.getLogger(__name__)

TOPIC = "deposits"
FLUSH_SECONDS = 1.0
DAY = 86_400.0
LASTING_DAYS, PASSING_DAYS = 400, 40
"""Days for which files and the like are remembered, and for which responses are, which vendors keep for 30."""
UNKNOWN_SECONDS = 10.0
"""How long an id that no node knows is not asked for again."""
LOOK_SECONDS, REST_SECONDS = 1.0, 10.0
"""How long a request waits for the database, and how long it is left alone after a wait in vain."""
MOST_UNKNOWN = 10_000
AT_ONCE = 200
"""Ids in one query."""
OVERLAP = 10_000
"""Milliseconds by which nodes' clocks may differ, and a transaction may take."""


class DepositRows:
    """Writes what `deposits` learn, and reads what they don't know."""

    def __init__(self, database: Database, *, shared: bool) -> None:
        """`shared`: other nodes write to the database, too."""
        self.deposits = Deposits()
        self.on_counted: Callable[[RequestRecord], None] = lambda _record: None
        """Gets the records of what was used after an answer."""
        self._claimed = asyncio.Event()
        self._turn = asyncio.Lock()
        self._database = database
        self._shared = shared
        self._unknown: dict[Key, float] = {}
        self._read_until = 0
        self._rests_until = 0.0
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load what was written before; if there is much, only the newest. Raises StorageError."""
        if self._database.touched(TOPIC):
            await self._read_newest()
        self.deposits.on_claim = self._claimed.set
        self._keeper = keep_going("writing down what users have stored", self._keep_up)

    async def close(self) -> None:
        """Write what is left."""
        await end(self._keeper)
        try:
            await self.flush()
        except StorageError as error:
            log.warning("what users have stored could not be written down: %s", error)

    async def look_up(self, keys: Sequence[Key]) -> None:
        """Load what the database has about these ids. If it can't be read at once, nothing is known about them: no
        request waits for it."""
        now = time.monotonic()
        asked = [key for key in keys if self._unknown.get(key, 0.0) <= now]
        if not asked or now < self._rests_until or not self._database.touched(TOPIC):
            return
        from sqlalchemy import select, tuple_

        from aimux.storage.schema.deposits import deposits

        try:
            async with asyncio.timeout(LOOK_SECONDS):
                for begin in range(0, len(asked), AT_ONCE):
                    some = tuple_(deposits.c.provider, deposits.c.id).in_(asked[begin : begin + AT_ONCE])
                    await self._read(select(deposits).where(some))
        except (StorageError, TimeoutError) as error:
            self._rests_until = time.monotonic() + REST_SECONDS
            why = str(error) or "the database takes too long"
            log.warning("the owners of what users have stored can't be read now: %s", why)
            return
        if len(self._unknown) > MOST_UNKNOWN:
            self._unknown.clear()
        self._unknown |= {key: now + UNKNOWN_SECONDS for key in asked if not self.deposits.find(key[0], [key[1]])}

    async def _keep_up(self) -> None:
        stale, pruned, fails = asyncio.Event(), -DAY, False
        unsubscribe = self._database.subscribe(TOPIC, stale.set) if self._shared else None
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(FLUSH_SECONDS):
                        await self._claimed.wait()
                self._claimed.clear()  # first: where it can't be written, the next try has to wait
                try:
                    await self.flush()
                    if stale.is_set():
                        stale.clear()
                        await self._read_newest()
                    if self._database.touched(TOPIC) and time.monotonic() - pruned >= DAY:
                        pruned = time.monotonic()
                        await self.prune()
                    fails = False
                except StorageError as error:
                    if not fails:
                        log.warning("what users have stored can't be written down or read now: %s", error)
                    fails = True
        finally:
            if unsubscribe is not None:
                unsubscribe()

    async def flush(self) -> None:
        """Write what is new, and have recorded what is over. Raises StorageError; then it is tried the next time."""
        async with self._turn:
            if self.deposits.fresh:
                await self._write()
            if self.deposits.claims:
                await asyncio.to_thread(_prepare)
            while self.deposits.claims:
                claims = self.deposits.claims[:AT_ONCE]
                granted = await self._change(claims)
                del self.deposits.claims[: len(claims)]
                for claim in granted:
                    for record in claim.records:
                        self.on_counted(record)

    async def _change(self, claims: Sequence[Claim]) -> list[Claim]:
        """Those whose dues could be changed: nobody else has counted what they count."""
        from sqlalchemy import select, tuple_, update

        from aimux.storage.schema.deposits import deposits

        granted = []
        async with self._database.write(TOPIC) as connection:
            for claim in claims:
                this = deposits.c.provider == claim.provider, deposits.c.id == claim.id
                change = update(deposits).where(*this, deposits.c.due.in_([claim.old, claim.new]))
                done = await connection.execute(change.values(due=claim.new, at=now()))
                if done.rowcount:
                    granted.append(claim)
        denied = [(claim.provider, claim.id) for claim in claims if claim not in granted]
        if denied:
            await self._read(select(deposits).where(tuple_(deposits.c.provider, deposits.c.id).in_(denied)))
        return granted

    async def _write(self) -> None:
        await asyncio.to_thread(_prepare)
        from aimux.storage.schema.base import insert
        from aimux.storage.schema.deposits import deposits

        at = now()
        fresh, self.deposits.fresh = self.deposits.fresh, {}
        rows = [
            {
                "provider": provider,
                "id": one,
                "account": place.account,
                "owner": place.owner,
                "at": at,
                "due": place.due or None,
                "until": at + int((LASTING_DAYS if lasts else PASSING_DAYS) * DAY * 1000),
            }
            for (provider, one), (place, lasts) in sorted(fresh.items())
        ]
        try:
            async with self._database.write(TOPIC) as connection:
                added = insert(connection.dialect, deposits)
                # If two nodes learn of the same thing, the first one decides whose it is.
                moved = {name: added.excluded[name] for name in ("account", "at", "until")}
                await connection.execute(
                    added.on_conflict_do_update(index_elements=["provider", "id"], set_=moved), rows
                )
        except BaseException:
            self.deposits.fresh = fresh | self.deposits.fresh
            raise

    async def _read_newest(self) -> None:
        """Rows that were written since the last time."""
        from sqlalchemy import select

        from aimux.storage.schema.deposits import deposits

        news = select(deposits).where(deposits.c.at >= self._read_until)
        await self._read(news.order_by(deposits.c.at.desc()).limit(MOST))

    async def _read(self, statement: Select[tuple[str, str, str, str, int, int, str | None]]) -> None:
        async with self._database.read() as connection:
            rows = (await connection.execute(statement)).all()
        self._adopt(reversed(rows))

    def _adopt(self, rows: Iterable[Row[tuple[str, str, str, str, int, int, str | None]]]) -> None:
        for row in rows:
            key = row.provider, row.id
            self.deposits.keep(row.provider, row.account, [row.id], row.owner, lasts=None, due=row.due or "")
            self._unknown.pop(key, None)
            self._read_until = max(self._read_until, row.at - OVERLAP)

    async def unread(self, since: int, until: int, owner: str | None, provider: str | None) -> int:
        """How many things that were begun in this span (milliseconds) have not told all that they took: of everybody
        or of one user, with every provider or one. Raises StorageError."""
        from sqlalchemy import func, select

        from aimux.storage.schema.deposits import deposits

        columns = deposits.c
        due = columns.due.is_not(None) & columns.due.not_like(f"{ALL_TOLD}%")
        query = select(func.count()).where(columns.at >= since, columns.at < until, due)
        for column, only in ((columns.owner, owner), (columns.provider, provider)):
            if only is not None:
                query = query.where(column == only)
        if not self._database.touched(TOPIC):
            return 0
        async with self._database.read() as connection:
            return int((await connection.execute(query)).scalar_one())

    async def rename(self, instance: str, account: str, new: str) -> None:
        """An account has another name now, here and at other nodes. Without the database, what it has is looked for
        again."""
        from sqlalchemy import update

        from aimux.storage.schema.deposits import deposits

        self.deposits.rename(instance, account, new)
        this = deposits.c.provider == instance, deposits.c.account == account
        try:
            async with self._turn, self._database.write(TOPIC) as connection:
                await connection.execute(update(deposits).where(*this).values(account=new, at=now()))
        except StorageError as error:
            log.warning("%s/%s: what users have stored there is not known under its new name: %s", instance, new, error)

    async def prune(self) -> None:
        """Forget what is past keeping. Raises StorageError."""
        from aimux.storage.schema.deposits import deposits

        async with self._database.write() as connection:
            await connection.execute(deposits.delete().where(deposits.c.until < now()))


def _prepare() -> None:
    """Import what writing needs: half a second that no event loop should wait."""
    import aimux.storage.schema  # noqa: F401
