"""How long a request's body may take, and how it is read whole."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from aimux.control.api.problems import Refused
from aimux.front import bounds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp.typedefs import Handler


class BodyTimeout(Exception):
    """The client is late with its body."""


@asynccontextmanager
async def in_time(request: web.Request) -> AsyncIterator[None]:
    """The front's deadlines, which hold even if another server accepts the connections. Raises BodyTimeout."""
    body, loop = request.content, asyncio.get_running_loop()
    started = since = loop.time()
    seen = body.total_bytes
    timer: asyncio.TimerHandle | None = None

    def look() -> None:
        nonlocal timer, since, seen
        timer, now = None, loop.time()
        if body.is_eof():
            return
        transport = request.transport
        if body.total_bytes != seen or transport is None or not transport.is_reading():
            seen, since = body.total_bytes, now  # if nobody reads what has arrived, the client is not to blame
        slow = seen < bounds.BODY_RATE * (now - started - bounds.BODY_GRACE)
        if now - since >= bounds.BODY_SECONDS or slow:
            deadline.reschedule(now)
        else:
            timer = loop.call_later(bounds.SWEEP_SECONDS, look)

    try:
        async with asyncio.timeout(None) as deadline:
            look()
            yield
    except TimeoutError:
        if not deadline.expired():
            raise
        raise BodyTimeout from None
    finally:
        if timer is not None:
            timer.cancel()


@web.middleware
async def with_deadline(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refused 408 if the body comes too slowly, whatever the handler is doing meanwhile."""
    if not request.can_read_body:
        return await handler(request)
    try:
        async with in_time(request):
            return await handler(request)
    except BodyTimeout:
        raise Refused(408, "too-slow", "The request's body did not arrive in time.") from None


async def read_body(request: web.Request, limit: int) -> bytes:
    """The whole body. Refused 413 above `limit` bytes, before any of it is asked for if the head has a length."""
    raw = None if (request.content_length or 0) > limit else await collect(request, limit)
    if raw is None:
        raise Refused(413, "too-large", f"The body is larger than {limit} bytes.")
    return raw


async def collect(request: web.Request, limit: int) -> bytes | None:
    """All of the body; None above `limit` bytes."""
    await continue_(request)
    pieces = bytearray()
    while piece := await request.content.readany():
        pieces += piece
        if len(pieces) > limit:
            return None
    return bytes(pieces)


async def not_yet(_request: web.Request) -> None:
    """A route's `expect_handler`: the body is asked for when it is read, not before its sender is known."""


async def continue_(request: web.Request) -> None:
    """Ask for a body whose client waits for that (`Expect: 100-continue`)."""
    if request.headers.get("expect", "").lower() == "100-continue" and not request.content.total_bytes:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
