"""Requests: the last ones, and why each went the way it did."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from aimux.control.dashboard import charts
from aimux.control.dashboard.page import ask, go, render, segment

routes = web.RouteTableDef()

FILTERS = ("user", "model", "account", "provider", "status")


@routes.get("/requests")
async def page(request: web.Request) -> web.StreamResponse:
    if wanted := request.query.get("id", "").strip():
        return go(request, f"requests/{segment(wanted)}")
    filters = {name: request.query[name].strip() for name in FILTERS if request.query.get(name, "").strip()}
    found = await ask(request, "GET", "/requests", limit=100, since="90d", after=request.query.get("after"), **filters)
    older = "?" + urlencode({**filters, "after": found["next"]}) if found["next"] else None
    return render(
        request, "requests.html", title="Requests", requests=found["items"], filters=filters, names=FILTERS, older=older
    )


@routes.get("/requests/{id}")
async def why(request: web.Request) -> web.StreamResponse:
    found: dict[str, Any] = await ask(request, "GET", f"/requests/{segment(request.match_info['id'])}")
    return render(request, "why.html", title="Why", request=found, timings=_timings(found))


def _timings(found: dict[str, Any]) -> Any:
    """Until the first byte, and from there to the end."""
    total, first = found["seconds"], found["first_byte_seconds"]
    if not total:
        return None
    parts = (
        [("waiting for the first byte", first), ("streaming", max(0.0, total - first))] if first else [("all", total)]
    )
    return charts.spans(parts, label="Where the time went")
