"""Who calls the API: today, whoever has the admin key."""

from __future__ import annotations

import hmac
import math
import time
from hashlib import sha256
from typing import TYPE_CHECKING

from aiohttp import web

from aimux.control.api.problems import Refused
from aimux.control.principal import Principal, Role
from aimux.control.state import RequestKey, control_of, ends

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler


PRINCIPAL = RequestKey("principal", Principal)
"""Who it is, on requests of those who have shown it."""


@web.middleware
async def identified(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Puts the principal on the request, where a right key is shown. Refused 403 for callers from elsewhere.

    Only a bearer key counts, which no browser sends by itself: there is nothing to forge.
    """
    control = control_of(request)
    whence, key = control.gateway.setup.authentication.whence, control.key
    if key is None:
        detail = "This aimux has no admin key, and none could be made in its state folder."
        raise Refused(403, "no-key", detail, remedy="set admin.token, or make state_dir writable")
    peer, own = ends(request)
    if key.local and not whence.is_here(request.headers, peer, own):
        detail = "Without an admin token in the configuration, the admin API serves its own machine only."
        raise Refused(403, "forbidden", detail, remedy="set admin.token")
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        digest = sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
        if hmac.compare_digest(digest, key.sha256):
            request[PRINCIPAL] = Principal("admin", Role.ADMIN, whence.address(request.headers, peer))
    return await handler(request)


def authenticated(request: web.Request) -> Principal:
    """For whatever is not open to everybody. Refused 401, and 429 after many failures."""
    if PRINCIPAL in request:
        return request[PRINCIPAL]
    control = control_of(request)
    address = control.gateway.setup.authentication.whence.address(request.headers, ends(request)[0])
    wait = control.failures.failed(address, time.monotonic())
    if wait is not None:
        seconds = math.ceil(wait)
        detail = "Too many requests without the admin key came from your address."
        raise Refused(429, "slow-down", detail, remedy=f"wait {seconds} s", headers={"retry-after": str(seconds)})
    local = control.key is not None and control.key.local
    raise Refused(
        401,
        "unauthorized",
        "The admin API needs its key: send `Authorization: Bearer <key>`.",
        remedy="it is in admin.key in the state folder" if local else "it is admin.token of the configuration",
        headers={"www-authenticate": 'Bearer realm="aimux admin"'},
    )
