"""Who calls: the holder of the admin key, or a user with a token of their own."""

from __future__ import annotations

import hmac
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from aimux.control.api.problems import Refused
from aimux.control.principal import ADMIN_KEY, Principal, Role
from aimux.control.state import RequestKey, control_of, ends
from aimux.gateway.guesses import NotLookedAt
from aimux.people import Access, Denied
from aimux.people.tokens import digest, form

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

    from aimux.gateway.guesses import Guesses


PRINCIPAL = RequestKey("principal", Principal)
"""The caller, on requests that carry a right key or token."""
DENIED = RequestKey("denied", Denied)
"""Why the token that was sent is not valid, or no longer."""


@web.middleware
async def identified(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Puts the principal on the request if it has a right key or token. Refused 403 for callers from elsewhere as long
    as there are no users and no admin token.

    Only `Authorization: Bearer` and `X-API-Key` count, which no browser sends by itself: there is nothing to forge.
    """
    control = control_of(request)
    callers, key = control.gateway.setup.authentication, control.key
    peer, reached = ends(request)
    token = _shown(request)
    looked = await look(request, token)
    found = callers.find(token) if token else None
    if isinstance(found, Access):
        looked.right()
        # A narrowed token is only for what its scopes say, and for nothing here.
        narrow = bool(found.scopes)
        role, address = Role.MEMBER if narrow else found.user.role, callers.proxies.address(request.headers, peer)
        request[PRINCIPAL] = Principal(
            found.user.name, role, address, found.user, found.expires_at, narrow, found.token_id
        )
        return await handler(request)
    is_key = key is not None and hmac.compare_digest(digest(token), key.sha256)
    if (
        not callers.proxies.is_here(request.headers, peer, reached)
        and (key is None or key.local)
        and (is_key or callers.nobody)
    ):
        detail = "Without an admin token in the configuration, the admin API serves its own machine only."
        raise Refused(403, "forbidden", detail, remedy="set admin.token, or use the token of a user with a role")
    if is_key:
        assert key is not None
        looked.right()
        address = callers.proxies.address(request.headers, peer)
        request[PRINCIPAL] = Principal(ADMIN_KEY, Role.ADMIN, address, token_id=key.id)
    elif found is not None:
        looked.wrong()
        request[DENIED] = found
    return await handler(request)


def _shown(request: web.Request) -> str:
    """The key or token of the request; "" if it has none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "").strip()


def authenticated(request: web.Request) -> Principal:
    """The caller, for what is not open to everybody. Refused 401, and 403 for a disabled user."""
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
    remedy, file = _where(request)
    raise Refused(
        401,
        "unauthorized",
        "The API needs the admin key or a user's token: send `Authorization: Bearer <it>`.",
        remedy=remedy,
        key_file=file,
        headers=_BEARER,
    )


@dataclass(frozen=True, slots=True)
class Look:
    """A look at a key or token, which may be a guess."""

    guesses: Guesses
    address: str
    shown: bytes
    taken: bool

    def right(self) -> None:
        self.guesses.right(self.address, self.shown, looked=self.taken)

    def wrong(self) -> None:
        self.guesses.wrong(self.address, self.shown)


async def look(request: web.Request, secret: str) -> Look:
    """Take a look before `secret` ("" for none) is compared with anything. Refused 429 if too many guesses come from
    there."""
    callers = control_of(request).gateway.setup.authentication
    guesses, address, shown = (
        callers.guesses,
        callers.proxies.address(request.headers, ends(request)[0]),
        digest(secret),
    )
    if not secret or guesses.knows(address, shown) or form(secret) == "whole":
        return Look(guesses, address, shown, taken=False)
    try:
        try:
            guesses.look(address, time.monotonic())
        except NotLookedAt:
            if not await guesses.turn(address):
                raise
            guesses.look(address, time.monotonic())
    except NotLookedAt as error:
        headers = {"retry-after": str(error.retry_after)}
        raise Refused(429, "slow-down", error.message, remedy="try again in a second", headers=headers) from None
    return Look(guesses, address, shown, taken=True)


_DENIED = {
    Denied.REVOKED: "This token was revoked.",
    Denied.EXPIRED: "This token has expired.",
    Denied.DISABLED: "Your user is disabled.",
    Denied.BARRED: "This token was revoked.",
    Denied.EARLY: "This token is not valid yet.",
    Denied.FOREIGN: "This token was signed for something else, or lacks a claim: aimux's log says which.",
    Denied.PENDING: "The key that this token was signed with is being asked for: try again in a moment.",
}
_BEARER = {"www-authenticate": 'Bearer realm="aimux admin"'}


def _where(request: web.Request) -> tuple[str, str | None]:
    """A message about where the key is, and its file; a path is only shown to callers on this machine."""
    control = control_of(request)
    if control.key is None:
        return "there is no admin key: set admin.token, or make state_dir writable", None
    if not control.key.local:
        return "the key is admin.token of the configuration", None
    peer, reached = ends(request)
    if not control.gateway.setup.authentication.proxies.is_here(request.headers, peer, reached):
        return "the key is in admin.key in the state folder", None
    file = str(control.key.file)
    return f"the key is in {file}", file
