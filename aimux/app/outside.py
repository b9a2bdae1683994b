"""What is outside the mounts (status, API, dashboard, pages): built for the first request that goes there.

Importing it takes 0.3 s of CPU and 20 MB, half of them for aiohttp, and the mounts need not wait for that.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aimux.control.server import ControlServer
    from aimux.control.state import Control
    from aimux.front.answer import Sent
    from aimux.front.request import Request
    from aimux.plugin import Routes


class Outside:
    """The application outside the mounts, and the server that runs it."""

    def __init__(self, make: Callable[[], Control], routes: Sequence[Routes]) -> None:
        """`make` gives what it shows and changes, once. `routes` are the plugins'."""
        self.made: Control | None = None
        """None: nobody has asked for it yet."""
        self._make = make
        self._routes = routes
        self._opening: asyncio.Task[ControlServer] | None = None
        self._server: ControlServer | None = None

    @property
    def control(self) -> Control:
        if self.made is None:
            self.made = self._make()
        return self.made

    async def serve(self, request: Request) -> Sent:
        """Serve a request of the front's. Runs as its turn. Raises as `ControlServer.serve` does."""
        if self._server is None:
            return await (await request.turn.apart(asyncio.shield(self.open()))).serve(request)
        return await self._server.serve(request)

    def open(self) -> asyncio.Task[ControlServer]:
        """Build it, once. Raises what the application of a plugin does."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        return self._opening

    async def _open(self) -> ControlServer:
        try:
            for module in ("aimux.control.application", "aimux.control.server", "aimux.control.api.api"):
                await asyncio.to_thread(import_module, module)  # streams go on meanwhile
            from aimux.control.application import control_application
            from aimux.control.server import ControlServer

            server = ControlServer(control_application(self.control, routes=self._routes))
            await server.start()
            self._server = server
            return server
        finally:
            self._opening = None  # what failed is tried again

    async def shutdown(self) -> None:
        """Tell the handlers that stay open that it is time to end."""
        if self._opening is not None:
            await asyncio.wait({self._opening})
        if self._server is not None:
            await self._server.shutdown()

    async def close(self) -> None:
        """End what is left. Nothing more must come."""
        if self._server is not None:
            await self._server.close()
        if self.made is not None:
            await self.made.api.close()
