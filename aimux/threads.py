"""Blocking work beside the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Like `asyncio.to_thread`, but a cancellation arrives only after the thread has ended.

    Otherwise a cancelled task would give up a lock under which its thread is still writing.
    """
    return await in_thread_of(None, function, *args, **kwargs)


async def in_thread_of(
    threads: ThreadPoolExecutor | None, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """The same in one of these threads; None: asyncio's own, of which there are a few for all."""
    future = asyncio.get_running_loop().run_in_executor(threads, functools.partial(function, *args, **kwargs))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        if not future.cancelled():
            future.exception()  # retrieved, so that asyncio does not warn; the cancellation goes first
        raise
