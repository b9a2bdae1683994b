"""Me: what I may use and have used, my tokens, and what to set in my clients."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import web

from aimux.control.api.problems import Refused
from aimux.control.dashboard import clients
from aimux.control.dashboard.limit_forms import AMOUNTS
from aimux.control.dashboard.page import after_refusal, ask, ask_and_go, form, render, segment
from aimux.control.dashboard.usage import TOKENS, plot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

routes = web.RouteTableDef()
LAST = 10
"""Requests that the page lists."""


@routes.get("/me")
async def page(request: web.Request) -> web.StreamResponse:
    return await _page(request, {})


async def _page(request: web.Request, typed: Mapping[str, str], refused: Refused | None = None) -> web.Response:
    """After a refusal it says why, and the form has what was typed into it."""
    me, serving = await asyncio.gather(ask(request, "GET", "/me"), ask(request, "GET", "/me/providers"))
    limits: Any = {"items": [], "forbidden": []}
    usage: Any = None
    chart = None
    requests: Any = {"items": []}
    if me["user"] is not None:
        limits, usage, days, requests = await asyncio.gather(
            ask(request, "GET", "/me/limits"),
            ask(request, "GET", "/me/usage", by="model", since="30d"),
            ask(request, "GET", "/me/usage", by="day", since="30d"),
            ask(request, "GET", "/me/requests", since="7d", limit=LAST),
        )
        chart = plot(_series(days["items"]), "tokens")
    spent = {(one["provider"], one["model"]): one for each in limits["forbidden"] for one in each["refused"]}.values()
    told = {one["provider"] for one in spent if not one["model"]}
    return render(
        request,
        "me.html",
        **after_refusal(refused),
        title="Me",
        me=me,
        typed=typed,
        limits=limits,
        spent=spent,
        waiting=[one for one in serving["items"] if one["status"] != "serving" and one["provider"] not in told],
        usage=usage,
        chart=chart,
        requests=requests["items"],
        amounts=AMOUNTS,
        settings=clients.settings(request, None),
    )


def _series(days: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Sums by day, as `/usage/series` would give them."""
    one = {name: [day[name] for day in days] for name in TOKENS}
    return {
        "bucket": "day",
        "times": [f"{day['day']}T00:00:00Z" for day in days],
        "series": [{"name": "tokens", **one}],
    }


@routes.post("/me/tokens")
async def issue(request: web.Request) -> web.StreamResponse:
    given = await form(request)
    body: dict[str, Any] = {"label": given.get("label", "").strip()}
    if ttl := given.get("ttl", "").strip():
        body["ttl"] = ttl
    try:
        issued = await ask(request, "POST", "/me/tokens", body)
    except Refused as refused:
        return await _page(request, given, refused)
    return clients.welcome(request, issued, "Your new token", for_me=True)


@routes.post("/me/tokens/{id}/revoke")
async def revoke(request: web.Request) -> web.StreamResponse:
    path = f"/me/tokens/{segment(request.match_info['id'])}"
    return await ask_and_go(request, "me", "The token is refused from now on.", "DELETE", path)
