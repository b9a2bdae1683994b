"""The front: makes a protocol for each client's connection, keeps them, and lets go of those that take too long.

None of the deadlines costs a request anything: a sweep looks at all connections every few seconds.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import os
from typing import TYPE_CHECKING, cast

from aimux.front import bounds
from aimux.front.answer import plain_answer
from aimux.front.connection import ClientConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from aimux.front.answer import Answer, Sent
    from aimux.front.request import Request

log = logging.getLogger("aimux.gateway")

_BUSY = "aimux has as many connections as it can hold; try again in a moment."


class FrontServer:
    """Makes a protocol for each connection, and keeps them.

    A request's turn is cancelled as soon as its client leaves, which stops the upstream's work. When `limit`
    connections are open, those whose request was refused make room for new ones, then those that have been idle
    longest; if there are none, a new connection gets 503.
    """

    def __init__(self, handler: Callable[[Request], Coroutine[None, None, Answer | Sent]]) -> None:
        self.handler = handler
        self.loop = asyncio.get_running_loop()
        self.now = self.loop.time
        self.limit = bounds.connection_limit()
        self.connections: set[ClientConnection] = set()
        self._evicted: set[ClientConnection] = set()
        """Connections that are being closed to make room; they no longer count."""
        self._full = False
        self._exhausted = False
        self._over = False
        self._sweeper: asyncio.TimerHandle | None = None

    def __call__(self) -> asyncio.Protocol:
        return cast("asyncio.Protocol", ClientConnection(self))

    @property
    def open(self) -> int:
        """Connections that count."""
        return len(self.connections) - len(self._evicted)

    def opened(self, connection: ClientConnection) -> None:
        if self._over:  # it was accepted in the moment in which the sockets were closed
            connection.transport.abort()
            return
        self.connections.add(connection)
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(bounds.SWEEP_SECONDS, self._sweep)
        if self.open > self.limit:
            self._make_room(connection)

    def closed(self, connection: ClientConnection) -> None:
        self.connections.discard(connection)
        self._evicted.discard(connection)

    def _make_room(self, newcomer: ClientConnection) -> None:
        if not self._full:
            self._full = True
            log.warning(
                "%d client connections are open, and there are no file descriptors for more: refused and idle ones are "
                "closed, and new ones refused while there are none (raise LimitNOFILE= or `ulimit -n`)",
                self.open - 1,
            )
        others = self.connections - self._evicted - {newcomer}
        spent = [(each.idle_since, id(each), each) for each in others if each.spent]
        idle = spent or [(each.idle_since, id(each), each) for each in others if each.idle]
        # Several at a time: looking through them all costs a millisecond, which a flood must not cause each time.
        for _, _, connection in heapq.nsmallest(1 + self.limit // 16, idle):
            self._evict(connection)
        if not idle:
            newcomer.transport.write(plain_answer(503, _BUSY, b"retry-after: 1\r\n"))
            self._evict(newcomer)

    def _evict(self, connection: ClientConnection) -> None:
        self._evicted.add(connection)
        if connection.spent:
            connection.transport.abort()
        else:
            connection.close()

    def _sweep(self) -> None:
        now = self.now()
        for connection in list(self.connections):
            try:
                connection.sweep(now)
            except Exception:  # a fault of ours: the others' deadlines hold all the same
                log.exception("a fault in a connection's deadlines: it is closed")
                connection.transport.abort()
        if self.open <= self.limit // 2:
            self._full = False
        self._look_for_descriptors()
        self._sweeper = self.loop.call_later(bounds.SWEEP_SECONDS, self._sweep) if self.connections else None

    def _look_for_descriptors(self) -> None:
        """The loop (libuv) hangs up on clients that it has no descriptor for, without reporting it."""
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
            self._exhausted = False
        except OSError as error:
            if not self._exhausted:
                log.warning("new clients are disconnected: %s (raise LimitNOFILE= or `ulimit -n`)", error.strerror)
            self._exhausted = True

    @property
    def awaits_requests(self) -> bool:
        """A connection has its first request on the way, or a part of one has come."""
        return any(connection.idle and not connection.at_rest for connection in self.connections)

    def pre_shutdown(self) -> None:
        """Close what is idle between two requests. What is under way or arriving goes on: the gateway drains it."""
        for connection in list(self.connections):
            if connection.at_rest:
                connection.close()

    async def shutdown(self, timeout: float) -> None:  # noqa: ASYNC109
        """End every request and close every connection; what is left to send gets so many seconds."""
        self._over = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self.connections):
            connection.end()
        patience = self.now() + timeout
        while self.connections and self.now() < patience:  # noqa: ASYNC110 - at the very end
            await asyncio.sleep(0.01)
        for connection in list(self.connections):
            connection.transport.abort()
