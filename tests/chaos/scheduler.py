"""One thing goes wrong after the other, in an order that a seed decides."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from .faults import Faults
from .ledger import Ledger
from .world import PATIENCE

Fault = Callable[[], Awaitable[object]]


class Scheduler:
    def __init__(self, faults: Faults, ledger: Ledger, dice: random.Random) -> None:
        self._faults = faults
        self._ledger = ledger
        self._dice = dice
        self._over = False

    async def run(self, seconds: float) -> None:
        """Each fault at least once, however short the time. Processes end in the first two thirds only: the last one
        has to live with everything else."""
        do, logins = self._faults, self._faults.logins
        deck: list[Fault] = [do.kill_upstreams, logins.expire, logins.new_login] * 2
        deck += [logins.refuse, logins.lose_an_answer, logins.write_back, do.disk_full, do.move_the_clock]
        deck += [do.bad_reload, do.good_reload, do.crowd]
        endings: list[Fault] = [do.restart, do.kill]
        if do.world.disk.lockable:
            deck.append(do.read_only)
        if do.world.disk.mounted:
            endings.append(do.full_disk_and_restart)
        began = time.monotonic()
        async with asyncio.TaskGroup() as besides:
            besides.create_task(self._certificates())
            besides.create_task(self._failures())
            try:
                first = True
                while first or time.monotonic() < began + seconds:
                    ends = endings if first or time.monotonic() < began + seconds * 2 / 3 else []
                    for fault in self._dice.sample([*deck, *ends], len(deck) + len(ends)):
                        if not first and time.monotonic() >= began + seconds:
                            break
                        await self._do(fault)
                        await asyncio.sleep(self._dice.uniform(0.05, 0.4))
                    first = False
            finally:
                self._over = True

    async def _certificates(self) -> None:
        """They take seconds to be noticed, and are in nobody's way."""
        while not self._over:
            await self._do(self._faults.new_certificate)

    async def _failures(self) -> None:
        """Of one request after the other; and on, if need be, until there was each of them."""
        while not self._over:
            await self._failure()
        try:
            async with asyncio.timeout(PATIENCE):
                while self._faults.unplayed:
                    await self._failure()
        except TimeoutError:
            raise AssertionError(f"no request meets {sorted(self._faults.unplayed)}") from None

    async def _failure(self) -> None:
        await self._do(self._faults.fail)
        await self._do(self._faults.break_off)
        await asyncio.sleep(0.05)

    async def _do(self, fault: Fault) -> None:
        name = fault.__name__.replace("_", " ")
        self._ledger.faults[name] += 1
        began = time.monotonic()
        try:
            await fault()
        except TimeoutError as error:
            raise AssertionError(f"{name}: what was to come of it does not come") from error
        finally:
            self._ledger.history.append((began, time.monotonic(), name))
