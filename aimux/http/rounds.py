"""Work that foreign bytes cause, spread over the rounds of the event loop.

A packet may hold tens of thousands of chunks or frames, and a hundred connections may each bring one in the same round.
Code that reads such bytes reads one piece at once and leaves the rest to `soon`: what waits there takes turns, and all
of it together gets a share of each round, so that nobody else waits longer than that.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SHARE = 0.003
"""Seconds of a round after which no further piece is begun."""


class _Rounds:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._call_soon = loop.call_soon
        self._waiting: deque[Callable[[], None]] = deque()
        self._coming = False

    def add(self, piece: Callable[[], None]) -> None:
        self._waiting.append(piece)
        if not self._coming:
            self._coming = True
            self._call_soon(self._run)

    def _run(self) -> None:
        waiting, enough = self._waiting, time.perf_counter() + SHARE
        try:
            for _ in range(len(waiting)):
                waiting.popleft()()
                if time.perf_counter() >= enough:
                    break
        finally:
            self._coming = bool(waiting)
            if waiting:
                self._call_soon(self._run)


_rounds: WeakKeyDictionary[asyncio.AbstractEventLoop, _Rounds] = WeakKeyDictionary()


def soon(piece: Callable[[], None]) -> None:
    """Call `piece` in one of the next rounds, after those that wait already. It takes a millisecond at most."""
    loop = asyncio.get_running_loop()
    rounds = _rounds.get(loop)
    if rounds is None:
        rounds = _rounds[loop] = _Rounds(loop)
    rounds.add(piece)


async def through(steps: Iterable[object]) -> None:
    """Spread the steps of long work over as many rounds as it needs; each step should take at most a millisecond."""
    work = _Work(iter(steps))
    soon(work.step)
    await work.done


class _Work:
    """A closure that schedules itself would be a cycle, and keep what it works on until a garbage collection."""

    def __init__(self, steps: Iterator[object]) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._steps = steps

    def step(self) -> None:
        if self.done.done():
            return  # cancelled
        try:
            next(self._steps)
        except StopIteration:
            self.done.set_result(None)
        except Exception as error:  # the work's own
            self.done.set_exception(error)
        else:
            soon(self.step)
