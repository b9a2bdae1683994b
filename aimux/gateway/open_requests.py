"""The requests under way, and how a stop waits for them."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aimux.front.request import Request
    from aimux.front.server import FrontServer
    from aimux.gateway.websockets import WebSockets
    from aimux.metering.record import RequestRecord

log = logging.getLogger("aimux.gateway")

TOLD = 5
"""Requests that are listed in the log when aimux ends."""
ARRIVAL_SECONDS = 0.3
"""How long a stop waits for the first request of connections that were accepted just before it."""


class OpenRequests(dict["Request", "RequestRecord"]):
    """What is known of each so far."""

    def __init__(self) -> None:
        self.draining = False
        """Nothing new is accepted: each answer ends its connection."""
        self.hurried = False
        """Nobody waits any longer for those that are left."""
        self._cut = False
        self._idle = asyncio.Event()

    def end(self, request: Request) -> None:
        del self[request]
        if self.draining and not self:
            self._idle.set()

    def why_cancelled(self, request: Request) -> str:
        """For its record."""
        return "client_gone" if request.connection.lost and not self._cut else "shutdown"

    async def drained(self, timeout: float, server: FrontServer, sockets: WebSockets) -> None:  # noqa: ASYNC109
        """Wait until there is none, at most `timeout` seconds. Call with `draining` set."""
        patience = time.monotonic() + min(ARRIVAL_SECONDS, timeout)
        while server.awaits_requests and time.monotonic() < patience:  # noqa: ASYNC110 - 30 looks at the very end
            await asyncio.sleep(0.01)
        if not self:
            return
        sockets.drain()
        if not self.hurried:
            log.info("waiting for %s, at most %g s; a second signal cuts off what is left", self._told(), timeout)
        try:
            async with asyncio.timeout(timeout):
                while self and not self.hurried:  # another one may have begun as the last one ended
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            log.warning("%d requests did not end within %g s and are cut off", len(self), timeout)
        if self:
            self._cut = True
            sockets.cut()

    def hurry(self) -> None:
        """Wait no longer: what is open is cut off, and has its record."""
        self.hurried = True
        self._idle.set()

    def _told(self) -> str:
        now, told = time.time(), []
        for record in list(self.values())[:TOLD]:
            who = f" of {record.user}" if record.user else ""
            told.append(f"{record.method} {record.path}{who}, {now - record.time:.0f} s old")
        more = len(self) - len(told)
        return f"{len(self)} open requests ({'; '.join(told)}{f'; {more} more' if more else ''})"
