"""Answers that aimux reads as a whole before it answers: short ones that it changes for the client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from aimux.gateway.call import Attempt, Call

T = TypeVar("T")

MOST = 16 * 1024 * 1024
"""Bytes of an upstream's list. OpenRouter's of models has half a megabyte, the Codex backend's their instructions."""
SECONDS = 10.0
AT_ONCE = 128 * 1024
"""A shorter answer is parsed in less than a millisecond; a longer one is parsed beside the event loop."""


async def whole_answer(attempt: Attempt) -> bytes | None:
    """As it came, compressed or not; None if it is too large or broke off. It can still be relayed."""
    raw = await attempt.exchange.peek(lambda _payload: False, SECONDS, MOST)
    return raw if attempt.exchange.held_whole else None


async def read_beside(call: Call, size: int, read: Callable[[], T]) -> T:
    """What `read` makes of so many bytes."""
    if size <= AT_ONCE:
        return read()
    return await call.turn.apart(asyncio.to_thread(read))
