"""Each request has an id, which its answer, its line in the log and its errors tell."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from aiohttp import web

from aimux.control.state import RequestKey
from aimux.metering.record import new_id, request_id

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

REQUEST_ID = RequestKey("request_id", str)


@web.middleware
async def with_id(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The client's own `x-request-id`, where it is one, else a new one."""
    request[REQUEST_ID] = request_id(request.headers, new_id(time.time()))
    return await handler(request)


async def tell(request: web.Request, response: web.StreamResponse) -> None:
    """For `on_response_prepare`."""
    if REQUEST_ID in request:
        response.headers["x-request-id"] = request[REQUEST_ID]
