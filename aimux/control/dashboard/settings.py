"""Settings: the configuration as it is in effect, plugins, database, nodes, and who changed what."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from aiohttp import web

from aimux.control.api.problems import Refused
from aimux.control.dashboard.page import after_refusal, ask, go, render, told

if TYPE_CHECKING:
    from collections.abc import Mapping

routes = web.RouteTableDef()
MOST = 60
"""Settings that are shown unless somebody asks for all."""
LONGEST = 200
"""Characters of a change."""
FILTERS = {"actor": "Who", "target": "To", "since": "Since", "until": "Before"}
"""Of changes, and their labels."""


@routes.get("/settings")
async def page(request: web.Request) -> web.StreamResponse:
    return await _page(request)


async def _page(request: web.Request, refused: Refused | None = None) -> web.Response:
    """After a refusal it says why."""
    filters = {name: text for name in FILTERS if (text := request.query.get(name, "").strip())}
    config, plugins, system, (audit, wrong) = await asyncio.gather(
        ask(request, "GET", "/config"),
        ask(request, "GET", "/plugins"),
        ask(request, "GET", "/system"),
        _changes(request, filters),
    )
    nodes = system["nodes"]
    # PostgreSQL keeps 63 bytes of a name.
    answers = next((at for at, node in enumerate(nodes) if len(nodes) > 1 and system["node"].startswith(node)), None)
    return render(
        request,
        "settings.html",
        **after_refusal(refused),
        title="Settings",
        config=config,
        plugins=plugins["items"],
        system=system,
        answers=answers,
        audit=[entry | {"change": _change(entry)} for entry in audit["items"]],
        older="?" + urlencode({**filters, "after": audit["next"]}) if audit["next"] else None,
        filters=filters,
        labels=FILTERS,
        wrong=wrong,
        all=bool(request.query.get("all")),
        most=MOST,
    )


async def _changes(request: web.Request, filters: Mapping[str, str]) -> tuple[Any, str]:
    """A page of the audit log; what is wrong with the filters, if anything."""
    try:
        return await ask(request, "GET", "/audit", limit=50, after=request.query.get("after"), **filters), ""
    except Refused as refused:
        if refused.problem.status != 422:
            raise
        return {"items": [], "next": None}, told(refused)


def _change(entry: Mapping[str, Any]) -> str:
    """What became of what: `weight 1 → 2`."""
    before, after = entry["before"] or {}, entry["after"] or {}
    told = []
    for name in {**before, **after}:
        old, new = before.get(name), after.get(name)
        if old != new:
            told.append(
                f"{name} {_value(old)} → {_value(new)}"
                if entry["before"] and entry["after"]
                else f"{name} {_value(old or new)}"
            )
    text = ", ".join(told)
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"


def _value(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


@routes.post("/settings/reload")
async def reload(request: web.Request) -> web.StreamResponse:
    """Read the configuration again. If something is wrong with it, that is shown and the old one stays in effect."""
    try:
        done = await ask(request, "POST", "/reload")
    except Refused as refused:
        return await _page(request, refused)
    text = "The configuration was read again, and is in effect."
    if later := done["after_restart"]:
        text += f" After a restart only: {', '.join(later)}."
    return go(request, "settings", text, "warn" if later else "ok")
