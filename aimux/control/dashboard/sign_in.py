"""Signing in: with a link that works once, with one's own aimux token, or with the machine's admin key."""

from __future__ import annotations

import contextlib
import hmac
import re
from typing import TYPE_CHECKING

from aiohttp import web

from aimux.control.api.problems import Refused
from aimux.control.dashboard.page import (
    SESSION,
    address_of,
    after_refusal,
    dashboard_of,
    form,
    go,
    render,
    scheme_of,
    session_of,
)
from aimux.control.dashboard.sessions import COOKIE, LIFETIME, MACHINE, is_local, keep
from aimux.control.middlewares.callers import look
from aimux.control.principal import refuse_signed
from aimux.control.state import control_of, ends
from aimux.people import Access, links
from aimux.people.tokens import digest
from aimux.storage import StorageError

if TYPE_CHECKING:
    from aimux.control.dashboard.sessions import Session

routes = web.RouteTableDef()


@routes.get("/sign-in")
async def page(request: web.Request) -> web.StreamResponse:
    code = request.query.get("code")
    if code is None:
        return _sign_in_page(request, request.query.get("to", ""))
    # Opening the link does not sign in yet: a chat's preview must not use it up.
    user = await links.user_of(dashboard_of(request).database, code)
    if user is None:
        raise _link_over()
    return render(
        request, "sign_in.html", title="Sign in", user=user or "an administrator", code=code, unsafe=_unsafe(request)
    )


def _sign_in_page(request: web.Request, to: str, refused: Refused | None = None) -> web.Response:
    return render(
        request,
        "sign_in.html",
        **after_refusal(refused),
        title="Sign in",
        user=None,
        code=None,
        to=_wanted(to),
        unsafe=_unsafe(request),
    )


@routes.post("/sign-in")
async def sign_in(request: web.Request) -> web.StreamResponse:
    given = await form(request)
    if code := given.get("code"):
        found = await links.use(dashboard_of(request).database, code)
        if found is None:
            raise _link_over()
    else:
        try:
            found = await _by_secret(request, given.get("token", "").strip())
        except Refused as refused:
            return _sign_in_page(request, given.get("to", ""), refused)
    return await _welcome(request, *found, _wanted(given.get("to", "")))


@routes.post("/sign-out")
async def sign_out(request: web.Request) -> web.StreamResponse:
    await dashboard_of(request).sessions.close(session_of(request))
    answer = go(request, "sign-in")
    keep(request, answer, COOKIE, "", 0)
    return answer


async def _welcome(request: web.Request, user: str, token_id: str, to: str) -> web.StreamResponse:
    sessions = dashboard_of(request).sessions
    if SESSION in request:
        with contextlib.suppress(StorageError):
            await sessions.close(session_of(request))
    address = address_of(request)
    session: Session = await sessions.open(user, token_id, address, request.headers.get("user-agent", ""))
    answer = go(request, to)
    keep(request, answer, COOKIE, session.secret, LIFETIME)
    return answer


async def _by_secret(request: web.Request, secret: str) -> tuple[str, str]:
    """User and token id. Refused 401, and 429 if too many guesses come from there."""
    control, looked = control_of(request), await look(request, secret)
    callers, (peer, reached) = control.gateway.setup.authentication, ends(request)
    key = control.key
    if key is not None and hmac.compare_digest(digest(secret), key.sha256):
        looked.right()
        if key.local and not callers.proxies.is_here(request.headers, peer, reached):
            detail = "The machine's own key signs in from this machine only."
            raise Refused(403, "forbidden", detail, remedy="set admin.token, or sign in with a token of your own")
        return MACHINE, key.id
    found = callers.find(secret)
    if isinstance(found, Access):
        looked.right()
        if found.scopes:
            detail = "This token is only for what its scopes say."
            raise Refused(403, "narrow", detail, remedy="sign in with one that has none")
        refuse_signed(found.token_id)
        return found.user.name, found.token_id
    looked.wrong()
    raise Refused(
        401,
        "unauthorized",
        "aimux does not know this token, or no longer accepts it.",
        remedy="look for a typing error, or ask whoever runs this aimux",
    )


def _link_over() -> Refused:
    text = "This link was used already, or is older than five minutes."
    return Refused(410, "link-over", text, remedy="ask for another one: aimux dashboard")


def _wanted(to: str) -> str:
    """The page of the dashboard that somebody asked for without being signed in; the first one for what can be none."""
    return to.lstrip("/") if re.fullmatch("[!-~]{1,2000}", to) and ".." not in to else ""


def _unsafe(request: web.Request) -> bool:
    """Whether the browser would not keep a session: it takes the cookie only over HTTPS, or from this machine."""
    return "https" not in (request.scheme, scheme_of(request)) and not is_local(request)
