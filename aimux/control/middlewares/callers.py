"""Who calls: whoever has the admin key, or a user with a token of their own."""

from __future__ import annotations

import hmac
import math
import time
from typing import TYPE_CHECKING

from aiohttp import web

from aimux.control.api.problems import Refused
from aimux.control.principal import ADMIN_KEY, Principal, Role
from aimux.control.state import RequestKey, control_of, ends
from aimux.people import Access, Denied
from aimux.people.tokens import digest

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler


PRINCIPAL = RequestKey("principal", Principal)
"""Who it is, on requests of those who have shown it."""
DENIED = RequestKey("denied", Denied)
"""Why the token that was shown is none, or none any more."""


@web.middleware
async def identified(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Puts the principal on the request, where a right key or token is shown. Refused 403 for callers from elsewhere,
    as long as there are no users and no admin token.

    Only `Authorization: Bearer` and `X-API-Key` count, which no browser sends by itself: there is nothing to forge.
    """
    control = control_of(request)
    callers, key = control.gateway.setup.authentication, control.key
    peer, own = ends(request)
    token = _shown(request)
    found = callers.find(token) if token else None
    if isinstance(found, Access):
        # A token that was narrowed is for what its scopes say, and for nothing here.
        narrow = bool(found.scopes)
        role, address = Role.MEMBER if narrow else found.user.role, callers.whence.address(request.headers, peer)
        request[PRINCIPAL] = Principal(
            found.user.name, role, address, found.user, found.expires_at, narrow, found.token_id
        )
        return await handler(request)
    is_key = key is not None and hmac.compare_digest(digest(token), key.sha256)
    if (
        not callers.whence.is_here(request.headers, peer, own)
        and (key is None or key.local)
        and (is_key or callers.nobody)
    ):
        detail = "Without an admin token in the configuration, the admin API serves its own machine only."
        raise Refused(403, "forbidden", detail, remedy="set admin.token, or use the token of a user with a role")
    if is_key:
        assert key is not None
        address = callers.whence.address(request.headers, peer)
        request[PRINCIPAL] = Principal(ADMIN_KEY, Role.ADMIN, address, token_id=key.id)
    elif found is not None:
        request[DENIED] = found
    return await handler(request)


def _shown(request: web.Request) -> str:
    """The key or token that came along; "" where none did."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "").strip()


def authenticated(request: web.Request) -> Principal:
    """For whatever is not open to everybody. Refused 401, 403 for a disabled user, and 429 after many failures."""
    if PRINCIPAL in request:
        return request[PRINCIPAL]
    control, denied = control_of(request), request.get(DENIED)
    if denied in {Denied.DISABLED, Denied.BARRED}:
        raise Refused(403, "disabled", _DENIED[denied], remedy="ask an administrator of this aimux")
    if denied in _DENIED:
        raise Refused(401, "unauthorized", _DENIED[denied], remedy="ask for another one", headers=_BEARER)
    authentication = control.gateway.setup.authentication
    if control.key is None and authentication.nobody:
        detail = "This aimux has no admin key, and none could be made in its state folder."
        raise Refused(403, "no-key", detail, remedy="set admin.token, or make state_dir writable")
    address = authentication.whence.address(request.headers, ends(request)[0])
    wait = control.failures.failed(address, digest(_shown(request)), time.monotonic())
    if wait is not None:
        seconds = math.ceil(wait)
        detail = "Too many requests without a key or token that is valid came from your address."
        raise Refused(429, "slow-down", detail, remedy=f"wait {seconds} s", headers={"retry-after": str(seconds)})
    remedy, file = _where(request)
    raise Refused(
        401,
        "unauthorized",
        "The API needs the admin key or a user's token: send `Authorization: Bearer <it>`.",
        remedy=remedy,
        key_file=file,
        headers=_BEARER,
    )


_DENIED = {
    Denied.REVOKED: "This token was revoked.",
    Denied.EXPIRED: "This token has expired.",
    Denied.DISABLED: "Your user is disabled.",
    Denied.BARRED: "This token was revoked.",
    Denied.EARLY: "This token is not valid yet.",
    Denied.FOREIGN: "This token was signed for something else.",
    Denied.PENDING: "The key that this token was signed with is being asked for: try again in a moment.",
}
_BEARER = {"www-authenticate": 'Bearer realm="aimux admin"'}


def _where(request: web.Request) -> tuple[str, str | None]:
    """What to say of where the key is, and its file; a path of this machine is told on this machine alone."""
    control = control_of(request)
    if control.key is None:
        return "there is no admin key: set admin.token, or make state_dir writable", None
    if not control.key.local:
        return "the key is admin.token of the configuration", None
    peer, own = ends(request)
    if not control.gateway.setup.authentication.whence.is_here(request.headers, peer, own):
        return "the key is in admin.key in the state folder", None
    file = str(control.key.file)
    return f"the key is in {file}", file
