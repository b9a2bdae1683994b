"""Keeps every account's credential fresh in the background, and notices what other programs do to the files."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING

from aimux.background import end
from aimux.plugin.errors import RefreshError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from aimux.accounts.account import Renewal
    from aimux.accounts.pool import AccountPool

log = logging.getLogger(__name__)


class Keeper:
    """Every `poll` seconds it looks for changed files. Every `interval` (give or take a tenth) it renews whatever would
    become stale before the next time, also of idle, cooling and disabled accounts, at most `parallel` at once.

    `pools` is read anew each time, so that a reload may change it.
    """

    def __init__(
        self,
        pools: Collection[AccountPool],
        interval: float,
        *,
        poll: float = 2.0,
        parallel: int = 4,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._pools = pools
        self._interval = interval
        self._poll = poll
        self._clock = clock
        self._sleep = sleep
        self._room = asyncio.Semaphore(parallel)
        self._queued: set[Renewal] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._problems: dict[str, str] = {}

    async def run(self) -> None:
        """Until cancelled. Renewals under way go on then: their pool's `close` waits for them."""
        countdown = 0.0  # in polls and not by the clock, which may be set or stand still in a suspended machine
        try:
            while True:
                for pool in list(self._pools):
                    await self._look(pool)
                full = countdown <= 0
                for pool in list(self._pools):
                    pool.distrust(self._clock())
                    self._renew(pool, full=full)
                countdown = (self._interval * random.uniform(0.9, 1.1) if full else countdown) - self._poll
                for state in {state for pool in self._pools if (state := pool.options.state) is not None}:
                    await state.flush()
                await self._sleep(self._poll)
        finally:
            await end(*self._tasks)

    async def _look(self, pool: AccountPool) -> None:
        name, problem = pool.provider.instance, ""
        try:
            await pool.load()
        except Exception as error:  # a disk or a plugin at fault must not end the keeping of the others
            problem = f"{type(error).__name__}: {error}"
        if problem and problem != self._problems.get(name):
            log.error("%s: can't look for accounts: %s", name, problem)
        self._problems[name] = problem

    def _renew(self, pool: AccountPool, *, full: bool) -> None:
        """A full round looks as far ahead as the next one; in between only what failed is tried again."""
        now, margin = self._clock(), pool.options.refresh_before_expiry
        within = margin + self._interval * 1.2 if full else 0.0
        due = [a.renewer for a in pool.accounts.values() if a.renewer is not None and a.renewer.due(now, within)]
        random.shuffle(due)  # otherwise always the same accounts would reach a shared token endpoint first
        for renewer in due:
            if renewer not in self._queued:
                self._queued.add(renewer)
                task = asyncio.get_running_loop().create_task(self._one(renewer, max(within, margin)))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _one(self, renewer: Renewal, within: float) -> None:
        try:
            async with self._room:
                await renewer.keep(within)
        except RefreshError:
            pass  # logged already, and shown by the account's state
        except Exception:  # keep() expects what can be expected; an error of ours must not pass in silence
            log.exception("a renewal broke")
        finally:
            self._queued.discard(renewer)
