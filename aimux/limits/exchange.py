"""The rounds in which nodes take pieces of budgets and tell each other what they use: once a second, what changed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from typing import TYPE_CHECKING

from aimux.limits.shares import Piece, Place
from aimux.storage import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aimux.limits.shares import Claims, Shared, Told
    from aimux.storage import Database

log = logging.getLogger(__name__)

EVERY = 1.0
SOONEST = 0.1
"""Seconds between two rounds, the second one where a piece is nearly used up."""
LOCK = 0x61696D7578_6C696D
"""The advisory lock of whoever takes pieces."""
HEARTBEAT = 10.0
"""Seconds after which what is open here is told again, though it is the same: else nobody believes it any longer."""
IDLE_SECONDS = 30.0
"""After so long without a request, a node returns its piece of a budget."""
OVERLAP = 3_000
"""Milliseconds for which what was read is read once more: a transaction's rows are seen when it is committed."""
KEPT = 40 * 86_400_000
"""Milliseconds after its start for which a window's rows are kept."""
GONE = 3_600_000
"""Milliseconds for which rows are kept of what has no window."""
PRUNE_ROUNDS = 3600


class Exchange:
    """Of one node."""

    def __init__(self, database: Database, claims: Claims) -> None:
        self._database = database
        self._claims = claims
        self._node = secrets.token_hex(8)
        """Names this process, and no other one ever."""
        self._held: dict[Shared, float] = {}
        """Budgets of which this node has a piece, and when each was last asked for."""
        self._low = asyncio.Event()
        claims.on_low = self._low.set
        self._told: dict[Told, tuple[int, float]] = {}
        """What was last told of what has no window, and when."""
        self._seen = 0
        self._failed = False

    async def run(self) -> None:
        """Until it is cancelled. While the database is away, every node goes on with the pieces it has."""
        while True:
            await asyncio.sleep(SOONEST)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY - SOONEST):
                    await self._low.wait()
            self._low.clear()
            try:
                await self.round(time.time())
                self._failed = False
            except StorageError as error:
                if not self._failed:
                    log.warning("budgets can't be shared with other nodes now, what this one has is used: %s", error)
                self._failed = True

    async def round(self, now: float) -> None:
        """Raises StorageError."""
        touched, self._claims.touched = self._claims.touched, set()
        self._held |= dict.fromkeys(touched, now)
        idle = [budget for budget, since in self._held.items() if now - since > IDLE_SECONDS]
        for budget in idle:
            budget.release()
        rolling = self._changed(now)
        try:
            taken = await self._take(touched, idle, rolling, now)
        except BaseException:
            self._claims.touched |= touched
            raise
        for budget, (place, piece) in taken.items():
            budget.take_piece(place, piece, now)
        self._note(rolling, now)
        for budget in idle:
            del self._held[budget]
        self._claims.round += 1

    def _changed(self, now: float) -> dict[Told, int]:
        """What is to be told of what has no window."""
        found = {}
        for one in self._claims.rolling:
            value, (told, at) = one.own(now), self._told.get(one, (0, now))
            if value != told or (value and now - at > HEARTBEAT):
                found[one] = value
        return found

    def _note(self, told: dict[Told, int], now: float) -> None:
        self._told |= {one: (value, now) for one, value in told.items()}
        for one in [one for one in self._claims.rolling if not one.own(now) and not self._told.get(one, (0, 0.0))[0]]:
            self._told.pop(one, None)
            self._claims.rolling.discard(one)

    async def close(self) -> None:
        """Return everything that is not gone."""
        held = [*self._held, *self._claims.touched]
        for budget in held:
            budget.release()
        try:
            await self._take((), held, dict.fromkeys(self._told, 0), time.time())
        except StorageError as error:
            log.warning(
                "this node's shares of budgets could not be returned: they are free again in an hour: %s", error
            )

    async def _take(
        self, wanting: Iterable[Shared], leaving: Iterable[Shared], rolling: Mapping[Told, int], now: float
    ) -> dict[Shared, tuple[Place, int]]:
        """Hear what the others have, and take pieces of what they leave. One node at a time."""
        from sqlalchemy import and_, delete, func, or_, select, text
        from sqlalchemy.dialects.postgresql import insert

        from aimux.storage.schema.limits import limit_shares as shares

        clock = text("(extract(epoch from clock_timestamp()) * 1000)::bigint")
        async with self._database.write() as connection:
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
            others = select(shares).where(shares.c.node != self._node, shares.c.heard_at >= self._seen - OVERLAP)
            for row in await connection.execute(others):
                piece = Piece(row.share, row.used, row.reserved, row.heard_at / 1000)
                self._claims.heard(Place(row.counter, row.start), row.node, piece)
            nodes = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            nodes += " AND starts_with(application_name, 'aimux node ')"
            self._claims.nodes = max(1, (await connection.execute(text(nodes))).scalar_one())
            self._seen = (await connection.execute(select(func.max(shares.c.heard_at)))).scalar() or 0
            taken = {budget: (budget.place, budget.offer(now)) for budget in wanting}
            rows = {place: (piece, budget.used, budget.reserved) for budget, (place, piece) in taken.items()}
            rows |= {budget.place: (budget.ceiling, budget.used, budget.reserved) for budget in leaving}
            for one, value in rolling.items():  # two of one place: a limit was taken away and set again
                rows[one.place] = (0, value + rows.get(one.place, (0, 0, 0))[1], 0)
            if rows:
                names = ("counter", "start", "node", "share", "used", "reserved", "heard_at")
                values = [(*place, self._node, *rows[place], clock) for place in sorted(rows)]
                put = insert(shares).values([dict(zip(names, row, strict=True)) for row in values])
                fresh = {name: put.excluded[name] for name in ("share", "used", "reserved", "heard_at")}
                await connection.execute(put.on_conflict_do_update(index_elements=[*shares.primary_key], set_=fresh))
            if self._claims.round % PRUNE_ROUNDS == 0:
                at = int(now * 1000)
                over = and_(shares.c.start > 0, shares.c.start < at - KEPT)
                gone = and_(shares.c.start == 0, shares.c.heard_at < at - GONE)
                await connection.execute(delete(shares).where(or_(over, gone)))
        self._claims.forget(int(now * 1000) - KEPT)
        return taken
