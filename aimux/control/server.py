"""The way from the listener to the application: each connection that comes here serves one request, and ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import hdrs, web

from aimux.front.handover import hand_over
from aimux.front.request import ReceivedRequest
from aimux.plugin.errors import ErrorKind, GatewayError

if TYPE_CHECKING:
    from aimux.front.answer import Sent
    from aimux.front.request import Request


class ControlServer:
    """Runs an application on connections that the front has accepted."""

    def __init__(self, app: web.Application) -> None:
        app.on_response_prepare.append(_last_of_its_connection)
        self._runner = _Runner(app, access_log=None, lingering_time=0)  # the front lingers

    async def start(self) -> None:
        await self._runner.setup()

    async def serve(self, request: Request) -> Sent:
        """Serve a request of the front's. Runs as its turn. Raises BodyError, and GatewayError for an odd method."""
        assert isinstance(request, ReceivedRequest)
        if request.head.method not in hdrs.METH_ALL:  # aiohttp would log a traceback that includes the request line
            raise GatewayError(
                ErrorKind.METHOD_NOT_ALLOWED, "aimux does not know this method.", retry=False, status=501
            )
        server = self._runner.server
        assert server is not None
        return await hand_over(request, server())

    async def shutdown(self) -> None:
        """Tell the handlers that stay open (events, WebSockets) that it is time to end."""
        await self._runner.shutdown()

    async def close(self) -> None:
        """End what is left, and clean up. Nothing more must come."""
        await self._runner.cleanup()


class _Runner(web.AppRunner):
    """Tells the handlers once: its own `cleanup` would tell them again."""

    def __init__(self, app: web.Application, **options: Any) -> None:
        super().__init__(app, **options)
        self._told = False

    async def shutdown(self) -> None:
        if not self._told:
            self._told = True
            await super().shutdown()


async def _last_of_its_connection(_request: web.Request, response: web.StreamResponse) -> None:
    response.force_close()
    if response.status != 101:
        response.headers["connection"] = "close"
