"""Work that goes on in the background."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

log = logging.getLogger(__name__)

PAUSES = (1.0, 60.0)
"""Seconds before work that broke begins anew: the first time, and at most. Each pause is twice the one before it, until
the work has gone on for longer than the longest."""


def keep_going(what: str, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
    """A task that runs `work` until it returns, or the task is cancelled. An exception that nobody foresaw is logged,
    and ends nothing for good: after a pause `work` begins anew.

    `what`: how the log calls it. A task would keep the exception to itself, and whoever relies on its work would never
    hear that it is not done any more.
    """
    return asyncio.create_task(_again(what, work), name=what)


async def end(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel them, and wait until they are over, however they end."""
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def _again(what: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    loop, pause = asyncio.get_running_loop(), PAUSES[0]
    while True:
        began = loop.time()
        try:
            await work()
        except Exception:
            if loop.time() - began > PAUSES[1]:
                pause = PAUSES[0]
            log.exception("a fault in %s, which goes on in %g s", what, pause)
        else:
            return
        await asyncio.sleep(pause)
        pause = min(PAUSES[1], 2 * pause)
