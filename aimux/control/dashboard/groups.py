"""Groups: who is in them, what they may use."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from aiohttp import web

from aimux.control.api.problems import Refused
from aimux.control.dashboard import limit_forms
from aimux.control.dashboard.page import after_refusal, ask, ask_and_go, edited, form, go, render, segment

if TYPE_CHECKING:
    from collections.abc import Mapping

routes = web.RouteTableDef()

AT_ONCE = 100
"""Members that the page lists."""


@routes.post("/people/groups")
async def add(request: web.Request) -> web.StreamResponse:
    given = await form(request)
    name = given.get("name", "").strip()
    body = {"name": name, "reserved": bool(given.get("reserved"))}
    return await ask_and_go(request, "people", f"The group {name} is there.", "POST", "/groups", body)


@routes.get("/people/groups/{name}")
async def group(request: web.Request) -> web.StreamResponse:
    return await _group(request, request.match_info["name"])


async def _group(
    request: web.Request, name: str, refused: Refused | None = None, **filled: Mapping[str, str]
) -> web.Response:
    """As `people._user`; `after` is where the members begin."""
    after = request.query.get("after")
    found, limits, grants, members = await asyncio.gather(
        ask(request, "GET", f"/groups/{segment(name)}"),
        limit_forms.limits_of(request, "group", name),
        ask(request, "GET", f"/limits/group/{segment(name)}/grants"),
        ask(request, "GET", "/users", group=name, after=after, limit=AT_ONCE),
    )
    return render(
        request,
        "group.html",
        **after_refusal(refused),
        title=name,
        group=found,
        limits=limits,
        grants=grants["items"],
        members=members["items"],
        after=after,
        more="?" + urlencode({"after": members["next"]}) if members["next"] else None,
        amounts=limit_forms.AMOUNTS,
        forbidden=limit_forms.FORBIDDEN,
        filled=filled,
    )


@routes.post("/people/groups/{name}")
async def change(request: web.Request) -> web.StreamResponse:
    given, name = await form(request), request.match_info["name"]
    body = {"reserved": bool(given.get("reserved")), "scopes": given.get("scopes", "").split()}
    path, back = f"/groups/{segment(name)}", f"people/groups/{segment(name)}"
    try:
        await ask(request, "PATCH", path, await edited(request, path, given, body))
    except Refused as refused:
        return await _group(request, name, refused, change=given)
    return go(request, back, f"{name} was changed.")


@routes.post("/people/groups/{name}/{action}")
async def act(request: web.Request) -> web.StreamResponse:
    given, name, action = await form(request), request.match_info["name"], request.match_info["action"]
    match action:
        case "remove":
            path = f"/groups/{segment(name)}"
            return await ask_and_go(request, "people", f"The group {name} was removed.", "DELETE", path)
        case "limits" | "grant":
            try:
                done = await limit_forms.changed(request, action, "group", name, given)
            except Refused as refused:
                return await _group(request, name, refused, **{action: given})
            return go(request, f"people/groups/{segment(name)}", done)
    raise web.HTTPNotFound
