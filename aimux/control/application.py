"""Everything outside the mounts, as an aiohttp application."""

from __future__ import annotations

from aiohttp import web

from aimux.control import pages, status
from aimux.control.api.openapi import BASE
from aimux.control.api.routes import api_application
from aimux.control.middlewares import bodies, origin, problems, records, request_ids, security_headers
from aimux.control.state import CONTROL, Control

MIDDLEWARES = (
    request_ids.with_id,
    records.recorded,
    problems.with_problems,
    origin.same_origin,
    bodies.with_deadline,
)
"""Outermost first: a record has an id, a problem is recorded, and what the others refuse is a problem."""


def control_application(control: Control) -> web.Application:
    app = web.Application(middlewares=MIDDLEWARES)
    app[CONTROL] = control
    app.on_response_prepare.extend([request_ids.tell, security_headers.add, problems.begun])
    status.add_routes(app)
    pages.add_routes(app)
    app.add_subapp(BASE, api_application())
    return app
