"""Each request has an id, which is in its answer, its log line and its errors."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from aiohttp import web

from aimux.control.state import RequestKey, control_of
from aimux.metering.record import new_id

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

REQUEST_ID = RequestKey("request_id", str)


@web.middleware
async def with_id(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The client's own `x-request-id` if it is acceptable, else a new one."""
    epoch = control_of(request).gateway.epoch
    request[REQUEST_ID] = epoch.request_id(request.headers, new_id(time.time()))
    return await handler(request)


async def tell(request: web.Request, response: web.StreamResponse) -> None:
    """For `on_response_prepare`."""
    if REQUEST_ID in request:
        response.headers["x-request-id"] = request[REQUEST_ID]
