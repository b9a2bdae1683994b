"""Settings: the configuration as it is in effect, plugins, database, nodes, and who changed what."""

from __future__ import annotations

import asyncio

from aiohttp import web

from aimux.control.dashboard.page import ask, render

routes = web.RouteTableDef()


@routes.get("/settings")
async def page(request: web.Request) -> web.StreamResponse:
    config, plugins, system, audit = await asyncio.gather(
        ask(request, "GET", "/config"),
        ask(request, "GET", "/plugins"),
        ask(request, "GET", "/system"),
        ask(request, "GET", "/audit", limit=50),
    )
    return render(
        request,
        "settings.html",
        title="Settings",
        config=config,
        plugins=plugins["items"],
        system=system,
        audit=audit["items"],
    )
