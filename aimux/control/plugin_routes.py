"""What plugins serve beside aimux's own pages and API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from aimux.control.api.within import call_of_plugin
from aimux.control.middlewares.callers import authenticated, identified
from aimux.control.principal import Role, require

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

    app = routes.application(within)
    if not routes.open:
        app.middlewares[:0] = [identified, _for_administrators]
    return app


@web.middleware
async def _for_administrators(request: web.Request, handler: Handler) -> web.StreamResponse:
    require(authenticated(request), Role.ADMIN)
    return await handler(request)
