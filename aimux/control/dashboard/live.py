"""Server-sent events: the parts of a page that have changed, once a second, for as long as the session lasts."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from aiohttp import web

from aimux.control.api.problems import Refused
from aimux.control.dashboard.page import CALLER, address_of, dashboard_of, session_of
from aimux.control.state import control_of
from aimux.storage import StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

EVERY = 1.0
LOOK_AGAIN = 10
"""After this many looks, check whether the session was ended. The end of its token or user is seen at once.
Something is sent, too, though nothing has changed: proxies end what is silent for long, and of a browser that is gone
without a word only what it does not take tells."""


async def stream(
    request: web.Request, parts: Callable[[web.Request], Awaitable[Mapping[str, str]]]
) -> web.StreamResponse:
    """`parts` gives the HTML of each part by its element's id."""
    response = web.StreamResponse(headers={"content-type": "text/event-stream", "x-accel-buffering": "no"})
    await response.prepare(request)
    dashboard, session, address = dashboard_of(request), session_of(request), address_of(request)
    role = request[CALLER].role
    shown: dict[str, str] = {}
    count = 0
    dashboard.watching += 1
    try:
        while not control_of(request).gateway.open.draining:
            count += 1
            still = dashboard.sessions.principal(session.user, session.token_id, address)
            if still is None or not still.role.includes(role):
                break
            try:
                if count % LOOK_AGAIN == 0:
                    if await dashboard.sessions.find(request, address) is None:
                        break
                    await response.write(b": still here\n\n")
                made = await parts(request)
            except (Refused, StorageError):  # the browser asks again, and gets the reason
                break
            for name, html in made.items():
                if shown.get(name) != html:
                    shown[name] = html
                    data = json.dumps({"id": name, "html": html})
                    await response.write(f"event: part\ndata: {data}\n\n".encode())
            await asyncio.sleep(EVERY)
    finally:
        dashboard.watching -= 1
    return response
