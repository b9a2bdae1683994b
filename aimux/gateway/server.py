"""The front: aiohttp's server, with a protocol that passes flow control on to the upstream's side."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

KEEP_ALIVE_SECONDS = 75.0
"""Idle client connections, and the time a client has for a request's head."""
MAX_HEADER = 32 * 1024
"""Codex sends a metadata header of about 1 kB; cookies and traces grow. One line and one value."""
READ_BUFFER = 256 * 1024
"""A request of the vendors' CLIs is 50–90 kB: with aiohttp's own 64 kB reading would stop and start within one."""


class Flow(Protocol):
    """What is being sent to a client."""

    def pause(self) -> None:
        """The client can't take more."""

    def resume(self) -> None:
        """The client can take more."""


class ClientProtocol(RequestHandler):
    """One client connection. `exchange` is the answer, or the WebSocket, that is streaming to it."""

    __slots__ = ("exchange", "full", "tunnel")

    def __init__(self, manager: FrontServer, **options: Any) -> None:
        super().__init__(manager, **options)
        self.exchange: Flow | None = None
        self.full = False
        """The client takes less than it is sent: an answer that starts now starts paused."""
        self.tunnel: asyncio.Protocol | None = None
        """Who gets the bytes of a connection that was upgraded."""

    def data_received(self, data: bytes) -> None:
        if self.tunnel is not None:
            self.tunnel.data_received(data)  # aiohttp would drop it as soon as the server is going to stop
        else:
            super().data_received(data)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.full = True
        if self.exchange is not None:
            self.exchange.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.full = False
        if self.exchange is not None:
            self.exchange.resume()


class FrontServer(web.Server):
    """aiohttp's low-level server: no router and no middleware on the hot path.

    A handler is cancelled as soon as its client leaves, which stops the upstream's work.
    """

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        super().__init__(handler, handler_cancellation=True, access_log=None)
        self._options: dict[str, Any] = {
            "access_log": None,
            "auto_decompress": False,
            "keepalive_timeout": KEEP_ALIVE_SECONDS,
            "lingering_time": 5.0,
            "max_field_size": MAX_HEADER,
            "max_line_size": MAX_HEADER,
            "read_bufsize": READ_BUFFER,
        }

    def __call__(self) -> ClientProtocol:
        return ClientProtocol(self, loop=asyncio.get_running_loop(), **self._options)
