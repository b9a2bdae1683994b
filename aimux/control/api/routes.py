"""The operations as routes of an aiohttp application."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from aiohttp import web

from aimux.control.api.api import OPERATIONS
from aimux.control.api.openapi import document
from aimux.control.api.operations import Page
from aimux.control.api.problems import Refused
from aimux.control.api.tables import CSV, Tabular
from aimux.control.middlewares.bodies import not_yet, read_body
from aimux.control.middlewares.callers import PRINCIPAL, authenticated, identified
from aimux.control.principal import require
from aimux.control.state import control_of

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

    from aimux.control.api.operations import Operation

MAX_BODY = 1024 * 1024
MAX_OPEN_BODY = 16 * 1024
"""For operations that need no key."""
_WEIGHT = re.compile(r"[01](\.[0-9]{0,3})?")


def api_application() -> web.Application:
    """For `add_subapp`. The application above it has a `CONTROL`."""
    app = web.Application(middlewares=[identified, _with_known_paths])
    app.router.add_get("/openapi.json", _openapi)
    for operation in OPERATIONS:
        for method in ("GET", "HEAD") if operation.method == "GET" else (operation.method,):
            app.router.add_route(method, operation.path, _handler(operation), expect_handler=not_yet)
    return app


@web.middleware
async def _with_known_paths(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Only callers who may use the API learn which paths exist."""
    if request.match_info.http_exception is not None:
        authenticated(request)
        if isinstance(request.match_info.http_exception, web.HTTPNotFound):
            raise Refused(404, "no-path", "There is no such path.", remedy="see /api/v1/openapi.json")
    return await handler(request)


def _handler(operation: Operation) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        if operation.role is not None:
            require(authenticated(request), operation.role)
        limit = MAX_OPEN_BODY if operation.role is None else MAX_BODY
        raw = await _read_json(request, limit) if operation.body is not None else b""
        api, caller = control_of(request).api, request.get(PRINCIPAL)
        result = await api.run(operation, request.match_info, request.query_string, raw, caller)
        if result is None:
            return web.Response(status=operation.status)
        if isinstance(result, Page):
            return web.Response(body=result.html, status=result.status, content_type="text/html", charset="utf-8")
        if isinstance(result, Tabular) and _prefers_csv(request):
            return _csv(request, result)
        return _json(result.model_dump_json(), operation.status)

    return handle


def _prefers_csv(request: web.Request) -> bool:
    """Whether the caller prefers `text/csv` to JSON: by weight, and by order if the weights are equal."""
    weights: dict[str, float] = {}
    for one in request.headers.get("accept", "").lower().split(","):
        kind, *parameters = [part.strip() for part in one.split(";")]
        weight = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        weights.setdefault(kind, float(weight) if _WEIGHT.fullmatch(weight) else 1.0)
    wanted = {kind: weight for kind, weight in weights.items() if kind in {CSV, "application/json"} and weight}
    return max(wanted, key=lambda kind: wanted[kind], default="") == CSV


def _csv(request: web.Request, table: Tabular) -> web.Response:
    """A table has no place for `next`, so that a header leads to the following page (RFC 8288)."""
    following: str | None = getattr(table, "next", None)
    query = request.rel_url.update_query(after=following).raw_query_string if following is not None else ""
    headers = {"link": f'<?{query}>; rel="next"'} if query else None
    return web.Response(text=table.csv(), content_type=CSV, charset="utf-8", headers=headers)


def _json(text: str, status: int = 200) -> web.Response:
    return web.Response(body=text.encode(), status=status, headers={"content-type": "application/json"})


async def _openapi(request: web.Request) -> web.StreamResponse:
    authenticated(request)
    return _json(json.dumps(document(OPERATIONS)))


async def _read_json(request: web.Request, limit: int) -> bytes:
    """Refused 413, 415."""
    raw = await read_body(request, limit)
    if raw and (request.content_type != "application/json" or "content-encoding" in request.headers):
        raise Refused(415, "not-json", "The body has to be JSON, uncompressed: `Content-Type: application/json`.")
    return raw
