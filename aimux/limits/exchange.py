"""The rounds in which nodes take pieces of budgets and tell each other what they use: once a second, what changed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from typing import TYPE_CHECKING

from aimux.limits.shares import KEPT, PERIOD, Piece, Place
from aimux.storage import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import TextClause

    from aimux.limits.shares import Claims, Shared, Told
    from aimux.storage import Database
    from aimux.storage.engine import Connection

log = logging.getLogger(__name__)

EVERY = 1.0
SOONEST = 0.1
"""Seconds between two rounds, the second one where a piece is nearly used up."""
LOCK = 0x61696D7578_6C696D
"""The advisory lock of whoever takes pieces."""
HEARTBEAT = 10.0
"""Seconds after which what is under way is told again, though it is the same: else nobody believes it any longer."""
IDLE_SECONDS = 15.0
"""After so long without a request, a node returns its piece of a budget."""
OVERLAP = 3_000
"""Milliseconds for which what was read is read once more: a transaction's rows are seen when it is committed."""
GONE = 3_600_000
"""Milliseconds for which rows are kept of what has no window."""
PRUNE_ROUNDS = 3600
WRONG_CLOCK = 60.0
"""Seconds by which a clock may differ from the database's without a word."""


class Exchange:
    """Of one node."""

    def __init__(self, database: Database, claims: Claims) -> None:
        self._database = database
        self._claims = claims
        self.node = secrets.token_hex(8)
        """Names this process, and no other one ever."""
        self._held: dict[Shared, float] = {}
        """Budgets of which this node has a piece or a part under way, and when each was last asked for."""
        self._low = asyncio.Event()
        claims.on_low = self._low.set
        self._told: dict[Told, tuple[int, float]] = {}
        """What was last told of what has no window, and when."""
        self._seen = 0
        self._failed = False
        self._wrong = False
        """This machine's clock is known to be."""

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
                self._claims.round += 1  # what the others told last grows old
                if not self._failed:
                    log.warning("budgets can't be shared with other nodes now, what this one has is used: %s", error)
                self._failed = True

    async def round(self, now: float) -> None:
        """Raises StorageError."""
        clock = self._claims.clock()
        touched, self._claims.touched = self._claims.touched, set()
        self._held |= dict.fromkeys(touched, clock)
        idle = self._idle(clock)
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
        self._told |= {one: (value, clock) for one, value in rolling.items()}
        for budget in idle:
            if budget.reserved:
                self._held[budget] = clock - IDLE_SECONDS + HEARTBEAT
            else:
                del self._held[budget]
        self._claims.round += 1

    def _idle(self, clock: float) -> list[Shared]:
        """Budgets that were asked for long ago. One in whose place another is meanwhile, because its limit was taken
        away and set again, is forgotten: what the other one has is told."""
        idle = {budget: None for budget, at in self._held.items() if clock - at > IDLE_SECONDS}
        busy = {budget.key: budget for budget in self._held if budget not in idle} if idle else {}
        for budget in list(idle):
            other = busy.get(budget.key)
            if other is not None and other.place == budget.place:
                del idle[budget], self._held[budget]
        return list(idle)

    def _changed(self, now: float) -> dict[Told, int]:
        """What is to be told of what has no window. What is over, and told to be, is forgotten."""
        found, clock = {}, self._claims.clock()
        for one in list(self._claims.rolling):
            value, (told, at) = one.own(now), self._told.get(one, (0, clock))
            if value != told or (value and clock - at > HEARTBEAT):
                found[one] = value
            elif not value:
                self._told.pop(one, None)
                self._claims.rolling.discard(one)
        return found

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
        from sqlalchemy import and_, case, delete, func, or_, select, text
        from sqlalchemy.dialects.postgresql import insert

        from aimux.storage.schema.limits import limit_shares as shares

        async with self._database.write() as connection:
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
            at: int = (await connection.execute(select(_stamp()))).scalar_one()
            self._compare(now - at / 1000)
            others = select(shares).where(shares.c.node != self.node, shares.c.heard_at >= self._seen - OVERLAP)
            clock = self._claims.clock()
            for row in await connection.execute(others):
                heard = clock - max(0, at - row.heard_at) / 1000
                piece = Piece(row.share, row.used, row.gone, row.heard_at, heard)
                self._claims.heard(Place(row.counter, row.start), row.node, piece)
            nodes = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            nodes += " AND starts_with(application_name, 'aimux node ')"
            self._claims.nodes = max(1, (await connection.execute(text(nodes))).scalar_one())
            taken = {budget: (budget.place, budget.offer(now)) for budget in wanting}
            rows = {place: (piece, budget.gone) for budget, (place, piece) in taken.items()}
            rows |= {budget.place: (budget.ceiling, budget.gone) for budget in leaving}
            for one, value in rolling.items():  # two of one place: a limit was taken away and set again
                rows[one.place] = (0, value + rows.get(one.place, (0, 0))[1])
            if rows:
                names = ("counter", "start", "node", "share", "used", "gone", "heard_at")
                values = [(*place, self.node, rows[place][0], 0, rows[place][1], at) for place in sorted(rows)]
                put = insert(shares)
                fresh = {name: put.excluded[name] for name in ("share", "gone", "heard_at")}
                put = put.on_conflict_do_update(index_elements=[*shares.primary_key], set_=fresh)
                await connection.execute(put, [dict(zip(names, row, strict=True)) for row in values])
            if self._claims.round % PRUNE_ROUNDS == 0:
                period = func.substring(shares.c.counter, PERIOD)
                over = and_(shares.c.start > 0, shares.c.start < at - case(KEPT, value=period, else_=KEPT["month"]))
                gone = and_(shares.c.start == 0, shares.c.heard_at < at - GONE)
                await connection.execute(delete(shares).where(or_(over, gone)))
                self._claims.forget(at)
        self._seen = at
        return taken

    def _compare(self, ahead: float) -> None:
        """With the database's clock, by which every node can be told to be wrong."""
        wrong = abs(ahead) > WRONG_CLOCK
        if wrong and not self._wrong:
            log.warning(
                "this machine's clock is %.0f s %s the database's: days, weeks and months of limits begin and end here "
                "by that much too %s",
                abs(ahead),
                "ahead of" if ahead > 0 else "behind",
                "early" if ahead > 0 else "late",
            )
        self._wrong = wrong

    async def add(self, connection: Connection, used: Mapping[Place, int]) -> None:
        """So much more of budgets is in the ledger as soon as this transaction is over, whoever had used it."""
        from sqlalchemy.dialects.postgresql import insert

        from aimux.storage.schema.limits import limit_shares as shares

        if used:
            put = insert(shares).values(node=self.node, share=0, gone=0, heard_at=_stamp())
            more = {"used": shares.c.used + put.excluded.used, "heard_at": put.excluded.heard_at}
            put = put.on_conflict_do_update(index_elements=[*shares.primary_key], set_=more)
            await connection.execute(put, [{**place._asdict(), "used": used[place]} for place in sorted(used)])

    async def change(self, connection: Connection, changed: Mapping[Place, int]) -> None:
        """What the ledger has of budgets is so much more (or less) than it was thought to be: of each node its part."""
        from sqlalchemy import text

        part = text(
            "UPDATE limit_shares SET used = used + round(:change * used / total)::bigint"
            " FROM (SELECT sum(used) AS total FROM limit_shares WHERE counter = :counter AND start = :start) AS whole"
            " WHERE counter = :counter AND start = :start AND used > 0"
        )
        for place in sorted(changed):
            await connection.execute(part, {**place._asdict(), "change": changed[place]})

    def hear_all(self) -> None:
        """Read again in the next round what every node has."""
        self._seen = 0


def _stamp() -> TextClause:
    """The database's clock, in milliseconds, and later than every stamp there is, even when that was set back."""
    from sqlalchemy import text

    return text(
        "greatest((extract(epoch from clock_timestamp()) * 1000)::bigint,"
        " (SELECT coalesce(max(heard_at), 0) + 1 FROM limit_shares))"
    )
