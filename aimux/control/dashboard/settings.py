"""Settings: the configuration as it is in effect, plugins, database, nodes, and who changed what."""

from __future__ import annotations

import asyncio

from aiohttp import web

from aimux.control.dashboard.page import ask, go, render

routes = web.RouteTableDef()
MOST = 60
"""Settings that are shown until somebody asks for all."""


@routes.get("/settings")
async def page(request: web.Request) -> web.StreamResponse:
    config, plugins, system, audit = await asyncio.gather(
        ask(request, "GET", "/config"),
        ask(request, "GET", "/plugins"),
        ask(request, "GET", "/system"),
        ask(request, "GET", "/audit", limit=50),
    )
    nodes = system["nodes"]
    # PostgreSQL keeps 63 bytes of a name.
    answers = next((at for at, node in enumerate(nodes) if len(nodes) > 1 and system["node"].startswith(node)), None)
    return render(
        request,
        "settings.html",
        title="Settings",
        config=config,
        plugins=plugins["items"],
        system=system,
        answers=answers,
        audit=audit["items"],
        all=bool(request.query.get("all")),
        most=MOST,
    )


@routes.post("/settings/reload")
async def reload(request: web.Request) -> web.StreamResponse:
    """Take the configuration again. What is wrong with it is told, and the one before stays in effect."""
    done = await ask(request, "POST", "/reload")
    text = "The configuration was read again, and is in effect."
    if later := done["after_restart"]:
        text += f" After a restart only: {', '.join(later)}."
    return go(request, "settings", text, "warn" if later else "ok")
