"""Each request leaves a record, which goes to the same sinks as those of the mounts: access log, metrics, …"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from aiohttp import web

from aimux.control.middlewares.callers import PRINCIPAL
from aimux.control.middlewares.request_ids import REQUEST_ID
from aimux.control.state import RequestKey, control_of, ends
from aimux.gateway.exposed_tokens import WITHHELD
from aimux.metering.record import TOLD, RequestRecord, Sender, new_id

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

ERROR = RequestKey("error", str)
"""The record's word for what went wrong."""


@web.middleware
async def recorded(request: web.Request, handler: Handler) -> web.StreamResponse:
    now, started = time.time(), time.perf_counter()
    exposes = control_of(request).gateway.epoch.exposes_token(request.raw_path)
    path = WITHHELD if exposes else request.raw_path.partition("?")[0][:TOLD]
    record = RequestRecord(new_id(now), now, request.method, path, request[REQUEST_ID])
    try:
        response = await handler(request)
        record.status = response.status
        record.bytes_out = response.body_length if response.prepared else response.content_length or 0
        record.error = request.get(ERROR, "")
        return response
    except web.HTTPException as redirect:
        record.status = redirect.status
        raise
    except asyncio.CancelledError:
        record.error = "client_gone"
        raise
    finally:
        record.bytes_in = request.content.total_bytes
        record.duration = time.perf_counter() - started
        proxies = control_of(request).gateway.setup.authentication.proxies
        address = proxies.address(request.headers, ends(request)[0])
        if (principal := request.get(PRINCIPAL)) is not None:
            record.user, record.sender = principal.name, Sender(token=principal.token_id, address=address)
        else:
            record.sender = Sender(address=address)
        control_of(request).gateway.finished(record)
