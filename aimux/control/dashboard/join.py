"""An invitation: a link that gives its user a token once, which nobody else has seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from aimux.control.api.problems import Refused
from aimux.control.api.within import call
from aimux.control.dashboard import clients
from aimux.control.dashboard.page import address_of, form, render
from aimux.control.principal import Principal, Role
from aimux.control.state import control_of

if TYPE_CHECKING:
    from typing import Any

routes = web.RouteTableDef()


@routes.get("/join")
async def page(request: web.Request) -> web.StreamResponse:
    code = request.query.get("code", "")
    invitation = await _call(request, "/invitations/look", code)
    return render(request, "join.html", title="Welcome to aimux", code=code, user=invitation["user"])


@routes.post("/join")
async def join(request: web.Request) -> web.StreamResponse:
    issued = await _call(request, "/invitations/accept", (await form(request)).get("code", ""))
    return clients.welcome(request, issued, f"Welcome, {issued['user']}", for_me=True)


async def _call(request: web.Request, path: str, code: str) -> Any:
    """The code is what authorizes it. Refused 410."""
    stranger = Principal("invited", Role.MEMBER, address_of(request))
    if not code:
        raise Refused(410, "no-invitation", "This address lacks its code.", remedy="copy the whole link")
    return await call(control_of(request).api, stranger, "POST", path, {"code": code})
