"""Keeps a running aimux's limits up with its configuration and its database."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from aimux.background import end, keep_going
from aimux.limits import history, stored
from aimux.limits.configured import policy
from aimux.limits.exchange import Exchange
from aimux.limits.history import History
from aimux.limits.rules import Owner, Scope, Who
from aimux.metering import repricing
from aimux.storage import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from aimux.config.limits import Limits as Section
    from aimux.limits.leases import Limits
    from aimux.limits.rules import Key, Policy
    from aimux.limits.stored import Stored
    from aimux.limits.sums import Counter
    from aimux.metering.ledger import Ledger
    from aimux.metering.repricing import Repriced
    from aimux.metering.rows import Row, Values
    from aimux.storage import Database
    from aimux.storage.engine import Connection

log = logging.getLogger(__name__)

SWEEP_SECONDS = 60.0
RETRY_SECONDS = 1.0
EACH = frozenset({"default", "member"})
"""Kinds of owners whose limits each user has alone."""
RECOUNT_SECONDS = 30.0
"""Between two counts because users have come to other groups or prices became known: each reads a month of everybody,
and somebody may have two tokens with different groups."""
LOOK_SECONDS = 5.0
JUMP_SECONDS = 60.0
"""Between two looks at the clock, and by how much it has to have been set for what is used to be counted again."""


class LimitKeeper:
    """`limits` get a new policy whenever the database or the configuration has one. Of two with one owner the
    configuration's counts."""

    def __init__(
        self,
        database: Database,
        limits: Limits,
        section: Section,
        ledger: Ledger | None = None,
    ) -> None:
        """`ledger`: this process's own; None: it serves nobody."""
        self.database = database
        self.limits = limits
        self.section = section
        self.stored: Stored = stored.NOTHING
        self.exchange = Exchange(database, limits.claims) if limits.claims is not None else None
        """With the nodes that share the budgets."""
        self._ledger = ledger
        self._reading = asyncio.Lock()
        self._stale = asyncio.Event()
        self._due = asyncio.Event()
        self._inexact = False
        """Whether something was counted at an assumed price that has one now, or not at all, because the ledger did not
        have it when it was asked."""
        self._ahead = 0.0
        """By how much the clock is ahead of the one that nobody sets, as of the last count."""
        self._known_prices = ""
        """When requests got a price, as of the last count."""
        limits.on_moved = self._due.set
        self._tasks: list[asyncio.Task[None]] = []
        self._unsubscribe: Callable[[], None] = lambda: None

    async def start(self) -> None:
        """Read what there is, and keep up from here on. Raises StorageError."""
        self._unsubscribe = self.database.subscribe(stored.TOPIC, self._stale.set)
        if self.exchange is not None:
            await self.exchange.round(time.time())
            self._known_prices = await self._priced_at()
        await self.refresh()
        self._ahead = _ahead()
        work = {
            "keeping up with limits": self._keep_up,
            "looking for requests without an end": self._sweep,
            "watching the clock": self._watch_clock,
            "counting again what is used": self._recounts,
        }
        if self.exchange is not None:
            work["sharing budgets with other nodes"] = self.exchange.run
            work["hearing of new prices"] = self._hear_prices
        self._tasks = [keep_going(what, one) for what, one in work.items()]

    async def close(self) -> None:
        self._unsubscribe()
        await end(*self._tasks)
        if self.exchange is not None:
            await self.exchange.close()

    def left(self, rows: Iterable[Row], *, but: Collection[Counter] = ()) -> None:
        """Count requests that the ledger gets only now, as an earlier process left them; not in those counters, which
        have them. In open windows they count as its others do."""
        now = time.time()
        for row in rows:
            key, cost = row.key, history.cost_of(row)
            who = Who(key.user, key.token, key.groups)
            self.limits.add(who, key.provider, key.limited, row.at / 1000, row.tokens, cost, now, but)

    async def wrote(self, connection: Connection, rows: Sequence[Values]) -> None:
        """The ledger takes these requests in this transaction: what of budgets other nodes must count, too, whatever
        becomes of this one. Raises StorageError."""
        if self.exchange is not None:
            await self.exchange.add(connection, history.amounts(self.limits.policy, self._zone, rows))

    async def repriced(self, connection: Connection, requests: Sequence[Repriced]) -> None:
        """These requests get a price in this transaction: budgets that nodes share counted them at an assumed one.
        Raises StorageError."""
        if self.exchange is not None:
            await self.exchange.change(connection, history.changes(self.limits.policy, self._zone, requests))

    async def reconfigure(self, section: Section) -> None:
        """Take another configuration's limits. What the ledger has seen is missing where it can't be read now."""
        self.section = section
        try:
            await self.refresh()
        except StorageError as error:
            log.warning("what was used under new limits can't be read yet, they count from now on: %s", error)
            self._adopt(History())
            self.count_again()

    async def refresh(self, *, recount: bool = False) -> None:
        """Have the limits be what database and configuration say. `recount`: what is used, too. Raises StorageError."""
        async with self._reading:
            now = time.time()
            if self.database.touched(stored.TOPIC):
                before, self.stored = self.stored, await stored.read(self.database, now)
                if self.stored.unread and self.stored.unread != before.unread:
                    told = ", ".join(self.stored.unread)
                    log.error("limits that only another version of aimux can read do not hold here: %s", told)
            wanted = self._policy()
            if wanted == self.limits.policy and self._zone == self.limits.zone and self._tasks and not recount:
                return  # the database calls now and then without a change
            if not wanted.has_budgets:
                self._adopt(History())
                return
            recount = recount or self._counted_before(wanted)
            if recount and self.exchange is not None:
                self.exchange.hear_all()
            node = self.exchange.node if self.exchange is not None else None
            async with contextlib.nullcontext(_unknown) if self._ledger is None else self._ledger.still() as unwritten:
                past = await history.read(self.database, self._zone, now, wanted.successors, node=node)
                since = unwritten()
                past.whole = since is not None
                counting = () if recount else frozenset(self.limits.budgets())
                self._adopt(past, recount=recount)
                self.left(since or (), but=counting)
                if self._ledger is not None and not past.whole:
                    self.count_again()

    def _counted_before(self, wanted: Policy) -> bool:
        """Whether a limit comes back that was counted once: of what was used without it the ledger alone knows."""
        before, after = _ruled(self.limits.policy), _ruled(wanted)
        if after <= before:
            return False
        return any(_in(budget.key, after) and not _in(budget.key, before) for budget in self.limits.budgets())

    def _adopt(self, past: History, *, recount: bool = False) -> None:
        self.limits.adopt(self._policy(), self._zone, time.time(), past, recount=recount)

    @property
    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.section.time_zone)

    def _policy(self) -> Policy:
        section, rows = self.section, self.stored
        merged = section.model_copy(
            update={"users": {**rows.users, **section.users}, "groups": {**rows.groups, **section.groups}}
        )
        return policy(merged, rows.tokens, [given.grant for given in rows.given], rows.successors)

    async def _keep_up(self) -> None:
        failing = ""
        while True:
            await self._stale.wait()
            self._stale.clear()
            try:
                await self.refresh()
                failing = ""
            except StorageError as error:
                if error.reason != failing:  # once a second would fill the log
                    log.warning("limits can't be read again, those that are known stay: %s", error)
                failing = error.reason
                asyncio.get_running_loop().call_later(RETRY_SECONDS, self._stale.set)

    async def _watch_clock(self) -> None:
        """A window that begins while the clock is wrong begins with nothing used, and one that it comes back to may be
        forgotten: the ledger knows better."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            jump = _ahead() - self._ahead
            if abs(jump) < JUMP_SECONDS:
                continue
            try:
                await self.refresh(recount=True)
            except StorageError as error:
                log.warning("the clock was set, and what is used can't be counted again yet: %s", error)
                continue
            self._ahead += jump
            log.warning("the clock was set by %+.0f s: what is used was counted again from the ledger", jump)

    def count_again(self) -> None:
        """Soon, from the ledger: what is counted is not exact, or counted at an assumed price that has one now."""
        self._inexact = True
        self._due.set()

    async def _hear_prices(self) -> None:
        """Another node may have priced requests of this one. The database calls now and then without that."""
        looked = asyncio.Event()
        unsubscribe = self.database.subscribe(repricing.TOPIC, looked.set)
        try:
            while True:
                try:
                    at = await self._priced_at()
                    if at != self._known_prices:
                        self._known_prices = at
                        self.count_again()
                except StorageError as error:
                    log.debug("whether there are new prices can't be read now: %s", error)
                await looked.wait()
                looked.clear()
        finally:
            unsubscribe()

    async def _priced_at(self) -> str:
        from sqlalchemy import select

        from aimux.storage.schema.base import meta

        async with self.database.read() as connection:
            query = select(meta.c.value).where(meta.c.key == repricing.DONE_AT)
            return (await connection.execute(query)).scalar() or "never"

    async def _recounts(self) -> None:
        """Limits of each member of a group count all that a user takes, but only while he is one."""
        while True:
            await self._due.wait()
            self._due.clear()
            if self._inexact and self._ledger is not None and self._ledger.waiting_bytes:
                self._due.set()  # what the ledger lacks would be missing again
            elif self._inexact or any(rule.owner.kind == "member" for rule in self.limits.policy.rules):
                self._inexact = False
                try:
                    await self.refresh(recount=True)
                except Exception as error:
                    self.count_again()
                    if not isinstance(error, StorageError):
                        raise
                    log.warning("what is used can't be counted again yet: %s", error)
            await asyncio.sleep(RECOUNT_SECONDS)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            if count := self.limits.expire(time.time()):
                log.error("%d requests ended without a record: they count with what they were thought to take", count)


def _ahead() -> float:
    return time.time() - asyncio.get_running_loop().time()


def _unknown() -> None:
    """Nothing of a ledger that isn't there."""


Ruled = tuple[Owner | None, str, Scope]
"""A limit's owner, name and scope. Without an owner: each user's, whether of a group or not."""


def _ruled(policy: Policy) -> set[Ruled]:
    return {(None if rule.owner.kind in EACH else rule.owner, rule.limit, rule.scope) for rule in policy.rules}


def _in(key: Key, places: set[Ruled]) -> bool:
    owner, limit, scope = key
    return (owner, limit, scope) in places or (owner.kind == "user" and (None, limit, scope) in places)
