"""Requests: the latest, and why each went the way it did."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from aiohttp import web

from aimux.control.api.problems import Refused
from aimux.control.dashboard import charts
from aimux.control.dashboard.page import ask, go, render, segment, told
from aimux.metering.record import REFUSED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from markupsafe import Markup

routes = web.RouteTableDef()

ACTIONS = {
    "relay": "its answer went to the client",
    "cool_down": "the account cools down",
    "back_off": "tried again elsewhere",
    "refresh": "its credential was renewed",
    "park": "the account was parked",
    "missing": "what was asked for does not lie with it",
    "skipped": "it was left out",
    "refused": "it can't serve such a request",
    "told": "it told what was used behind an answer",
}
"""What an upstream's answer meant → the same for a person."""

FILTERS = ("user", "group", "model", "account", "provider", "status")
MOST = 200
"""Names that a filter suggests."""


@routes.get("/requests")
async def page(request: web.Request) -> web.StreamResponse:
    asked = request.query
    filters = {name: asked[name].strip() for name in (*FILTERS, "until", "failed") if asked.get(name, "").strip()}
    notices: list[dict[str, str]] = []
    if wanted := asked.get("id", "").strip():
        try:
            await ask(request, "GET", f"/requests/{segment(wanted)}")
        except Refused as refused:
            if refused.problem.status not in {404, 422}:
                raise
            notices.append({"level": "bad", "text": told(refused)})
        else:
            return go(request, f"requests/{segment(wanted)}")
    found: Any = {"items": [], "next": None}
    try:
        found = await ask(request, "GET", "/requests", limit=100, since="90d", after=asked.get("after"), **filters)
    except Refused as refused:
        if refused.problem.status != 422:
            raise
        notices.append({"level": "bad", "text": told(refused)})
    older = "?" + urlencode({**filters, "after": found["next"]}) if found["next"] else None
    return render(
        request,
        "requests.html",
        title="Requests",
        requests=found["items"],
        filters=filters,
        names=FILTERS,
        known=await _known(request),
        wanted=wanted,
        older=older,
        notices=notices,
    )


async def _known(request: web.Request) -> Mapping[str, list[str]]:
    """What the filters suggest: who and what there is, and the models that cost most lately."""
    users, groups, accounts, models = await asyncio.gather(
        ask(request, "GET", "/users", limit=MOST),
        ask(request, "GET", "/groups", limit=MOST),
        ask(request, "GET", "/accounts", limit=MOST),
        ask(request, "GET", "/usage", by="model", since="30d", limit=MOST),
    )
    return {
        "user": [one["name"] for one in users["items"]],
        "group": [one["name"] for one in groups["items"]],
        "model": [one["model"] for one in models["items"] if one["model"]],
        "account": [f"{one['provider']}/{one['name']}" for one in accounts["items"]],
        "provider": sorted({one["provider"] for one in accounts["items"]}),
    }


@routes.get("/requests/{id}")
async def why(request: web.Request) -> web.StreamResponse:
    return await explained(request, "/requests")


@routes.get("/me/requests/{id}")
async def why_own(request: web.Request) -> web.StreamResponse:
    return await explained(request, "/me/requests")


async def explained(request: web.Request, where: str) -> web.StreamResponse:
    found: dict[str, Any] = await ask(request, "GET", f"{where}/{segment(request.match_info['id'])}")
    vendors = [step["upstream_id"] for step in found["steps"] if step["upstream_id"]]
    return render(
        request,
        "why.html",
        title="Why",
        request=found,
        timings=_timings(found),
        vendors=vendors,
        actions=ACTIONS,
        refused=REFUSED.get(found["error"]),
        own=where == "/me/requests",
    )


@dataclass(frozen=True, slots=True)
class Timings:
    """A bar, and its parts: name and seconds."""

    svg: Markup
    parts: list[tuple[str, float]]


def _timings(found: Mapping[str, Any]) -> Timings | None:
    """Each attempt until an answer's head, then the time to the client's first byte, then to the end."""
    total, first = found["seconds"], found["first_byte_seconds"]
    if not total:
        return None
    parts: list[tuple[str, float]] = []
    at = 0.0
    for step in found["steps"]:
        until = min(step["seconds"], total)
        parts.append(
            (f"{step['provider']}/{step['account']} until its answer ({step['status'] or 'none'})", until - at)
        )
        at = until
    if first is not None and first > at:
        parts.append(("to the first byte", first - at))
        at = first
    parts.append(("streaming" if first is not None else "until the end", max(0.0, total - at)))
    parts = [(name, max(0.0, seconds)) for name, seconds in parts if seconds >= 0.0005] or [("all", total)]
    return Timings(charts.spans(parts, label="Where the time went"), parts)
