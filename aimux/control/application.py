"""Everything outside the mounts, as an aiohttp application."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from aimux.control import mounts, relaying, status
from aimux.control.api.routes import api_application
from aimux.control.dashboard.application import dashboard_application
from aimux.control.middlewares import bodies, origin, problems, records, request_ids, security_headers
from aimux.control.plugin_routes import plugin_application
from aimux.control.state import CONTROL, Control
from aimux.front import bounds
from aimux.plugin.parts import API, DASHBOARD

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aimux.plugin import Routes

MIDDLEWARES = (
    mounts.first,
    request_ids.with_id,
    records.recorded,
    problems.with_problems,
    origin.same_origin,
    bodies.with_deadline,
)
"""Outermost first: a record has an id, a problem is recorded, and what the others refuse is a problem."""

SERVER = {
    "auto_decompress": False,  # what a body unpacks to would have no bound
    "handler_cancellation": True,
    "max_field_size": bounds.MAX_FIELD,
    "max_line_size": bounds.MAX_FIELD,
}
"""Arguments of the `web.Server` that serves it, whoever makes that, if it is the outermost application."""


def control_application(control: Control | None = None, *, routes: Iterable[Routes]) -> web.Application:
    """`control` None: it is set as `CONTROL` by the time the application has started. `routes` are the plugins'."""
    app = web.Application(middlewares=MIDDLEWARES, handler_args=SERVER)
    if control is not None:
        app[CONTROL] = control
    app.on_response_prepare.append(_prepare)
    app.router.register_resource(mounts.Mounts(app))
    status.add_routes(app)
    app.router.add_get("/", _front_page)
    app.add_subapp(API, api_application())
    app.add_subapp(DASHBOARD, dashboard_application())
    for one in routes:
        app.add_subapp(one.prefix, plugin_application(one, lambda: app[CONTROL].api))
    return app


async def _front_page(_request: web.Request) -> web.StreamResponse:
    """What a person sees when opening aimux's address in a browser."""
    raise web.HTTPSeeOther(f"{DASHBOARD[1:]}/")  # below whatever its address begins with


async def _prepare(request: web.Request, response: web.StreamResponse) -> None:
    steps = (relaying.tidy,) if mounts.TARGET in request else (request_ids.tell, security_headers.add, problems.begun)
    for step in steps:
        await step(request, response)
