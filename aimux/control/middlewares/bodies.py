"""How long a request's body may take, and how it is read whole."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from aimux.control.api.problems import Refused
from aimux.front import bounds

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler


@web.middleware
async def with_deadline(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The front's deadlines, also where another server accepts the connections. Refused 408."""
    if not request.can_read_body:
        return await handler(request)
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
            seen, since = body.total_bytes, now  # where nobody takes what has come, the client is not to blame
        slow = seen < bounds.BODY_RATE * (now - started - bounds.BODY_GRACE)
        if now - since >= bounds.BODY_SECONDS or slow:
            deadline.reschedule(now)
        else:
            timer = loop.call_later(bounds.SWEEP_SECONDS, look)

    try:
        async with asyncio.timeout(None) as deadline:
            look()
            return await handler(request)
    except TimeoutError:
        if not deadline.expired():
            raise
        raise Refused(408, "too-slow", "The request's body did not arrive in time.") from None
    finally:
        if timer is not None:
            timer.cancel()


async def read_body(request: web.Request, limit: int) -> bytes:
    """All of it. Refused 413 above `limit` bytes, told before any of it is asked for where the head has a length."""
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    await continue_(request)
    pieces = bytearray()
    while piece := await request.content.readany():
        pieces += piece
        if len(pieces) > limit:
            raise _too_large(limit)
    return bytes(pieces)


async def not_yet(_request: web.Request) -> None:
    """A route's `expect_handler`: the body is asked for when somebody reads it, not before it is known who sends it."""


async def continue_(request: web.Request) -> None:
    """Ask for a body that waits for that (`Expect: 100-continue`)."""
    if request.headers.get("expect", "").lower() == "100-continue" and not request.content.total_bytes:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


def _too_large(limit: int) -> Refused:
    return Refused(413, "too-large", f"The body is larger than {limit} bytes.")
