"""Pages of other origins can change nothing here. Browsers say where a request comes from; other programs need not.

What is open to this machine without a key is guarded further (`aimux.control.status`): a foreign page can make its own
name resolve to this machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from aimux.control.api.problems import Refused
from aimux.gateway.client_address import from_other_origin

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

_READING = frozenset({"GET", "HEAD", "OPTIONS"})


@web.middleware
async def same_origin(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refused 400 for a host that handlers could make no address of, and 403 for what would change something, and for
    WebSockets, which need no leave to cross origins.
    """
    if not _has_address(request):
        raise Refused(400, "host", "The Host header is not a valid host.")
    changes = request.method not in _READING or "upgrade" in request.headers
    changes = changes and request.match_info.http_exception is None  # what is not there is not changed
    if changes and from_other_origin(request.headers):
        raise Refused(403, "origin", "Another site's page can't do this.", remedy="use aimux's own pages, or its API")
    return await handler(request)


def _has_address(request: web.Request) -> bool:
    """Without a Host header, which HTTP/1.0 permits, aiohttp would ask DNS for our name."""
    if not request.headers.get("host"):
        return True
    try:
        return request.url.host is not None
    except ValueError:
        return False
