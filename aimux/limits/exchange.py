"""The rounds in which nodes tell each other what they have of every budget: once a second, and only what changed."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from typing import TYPE_CHECKING, Any

from aimux.limits.shares import Piece, Place
from aimux.storage import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aimux.limits.counters import Budget
    from aimux.limits.shares import Claims
    from aimux.storage import Database

log = logging.getLogger(__name__)

EVERY = 1.0
IDLE_SECONDS = 30.0
"""After so long without a request, a node returns its piece of a budget."""
OVERLAP = 3_000
"""Milliseconds for which what was read is read once more: a transaction's rows are seen when it is committed."""
KEPT = 40 * 86_400_000
"""Milliseconds after its start for which a window's rows are kept."""
PRUNE_ROUNDS = 3600


class Exchange:
    """Of one node."""

    def __init__(self, database: Database, claims: Claims) -> None:
        self._database = database
        self._claims = claims
        self._node = secrets.token_hex(8)
        """Names this process, and no other one ever."""
        self._held: dict[Budget, float] = {}
        """Budgets of which this node has a piece, and when each was last asked for."""
        self._seen = 0
        self._failed = False

    async def run(self) -> None:
        """Until it is cancelled. While the database is away, every node goes on with the pieces it has."""
        while True:
            await asyncio.sleep(EVERY)
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
        for budget in touched:
            self._held[budget] = now
            budget.claim(now)
        idle = [budget for budget, since in self._held.items() if now - since > IDLE_SECONDS]
        for budget in idle:
            budget.release()
        try:
            await self._write_and_read([*touched, *idle])
        except BaseException:
            self._claims.touched |= touched
            raise
        for budget in idle:
            del self._held[budget]
        self._claims.round += 1

    async def close(self) -> None:
        """Return everything that is not gone."""
        held = [*self._held, *self._claims.touched]
        for budget in held:
            budget.release()
        try:
            await self._write_and_read(held)
        except StorageError as error:
            log.warning(
                "this node's shares of budgets could not be returned: they are free again in an hour: %s", error
            )

    async def _write_and_read(self, news: Iterable[Budget]) -> None:
        from sqlalchemy import delete, func, select, text
        from sqlalchemy.dialects.postgresql import insert

        from aimux.storage.schema.limits import limit_shares as shares

        clock = text("(extract(epoch from clock_timestamp()) * 1000)::bigint")
        # Everybody in the same order, so that no two transactions wait for each other.
        rows: dict[Place, dict[str, Any]] = {
            budget.place: {
                "counter": budget.place.counter,
                "start": budget.place.start,
                "node": self._node,
                "share": budget.ceiling,
                "used": budget.used,
                "reserved": budget.reserved,
                "heard_at": clock,
            }
            for budget in news
        }
        async with self._database.write() as connection:
            if rows:
                put = insert(shares).values([rows[place] for place in sorted(rows)])
                fresh = {name: put.excluded[name] for name in ("share", "used", "reserved", "heard_at")}
                await connection.execute(put.on_conflict_do_update(index_elements=[*shares.primary_key], set_=fresh))
            if self._claims.round % PRUNE_ROUNDS == 0:
                await connection.execute(delete(shares).where(shares.c.start < int(time.time() * 1000) - KEPT))
            others = select(shares).where(shares.c.node != self._node, shares.c.heard_at >= self._seen - OVERLAP)
            found = (await connection.execute(others)).all()
            nodes = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            nodes += " AND starts_with(application_name, 'aimux node ')"
            self._claims.nodes = max(1, (await connection.execute(text(nodes))).scalar_one())
            self._seen = (await connection.execute(select(func.max(shares.c.heard_at)))).scalar() or 0
        for row in found:
            piece = Piece(row.share, row.used, row.reserved, row.heard_at / 1000)
            self._claims.heard(Place(row.counter, row.start), row.node, piece)
        self._claims.forget(int(time.time() * 1000) - KEPT)
