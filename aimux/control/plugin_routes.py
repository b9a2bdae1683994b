"""What plugins serve beside aimux's own pages and API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from aimux.control.api.within import acting_for, call_of_plugin
from aimux.control.middlewares.callers import authenticated, identified
from aimux.control.principal import Role, require
from aimux.control.state import control_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.typedefs import Handler

    from aimux.control.api.api import Api
    from aimux.plugin import Routes


def plugin_application(routes: Routes, api: Callable[[], Api]) -> web.Application:
    """The plugin's own application, for `add_subapp`. Unless it is open, only administrators get that far.

    `api()` gives the API once the application has started.
    """

    async def within(method: str, path: str, body: Any = None) -> tuple[int, Any]:
        return await call_of_plugin(api(), method, path, body)

    @web.middleware
    async def wanted(request: web.Request, handler: Handler) -> web.StreamResponse:
        if routes.compatibility not in control_of(request).compatibility:
            raise web.HTTPNotFound
        return await handler(request)

    app = routes.application(within)
    if not routes.open:
        app.middlewares[:0] = [identified, _for_administrators]
    if routes.compatibility:
        app.middlewares.insert(0, wanted)
    return app


@web.middleware
async def _for_administrators(request: web.Request, handler: Handler) -> web.StreamResponse:
    caller = authenticated(request)
    require(caller, Role.ADMIN)
    with acting_for(caller):
        return await handler(request)
