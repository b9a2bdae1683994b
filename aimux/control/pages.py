"""What a person sees when opening aimux's address in a browser."""

from __future__ import annotations

from aiohttp import web

from aimux.control.dashboard.page import ROOT


def add_routes(app: web.Application) -> None:
    app.router.add_get("/", front_page)


async def front_page(_request: web.Request) -> web.StreamResponse:
    raise web.HTTPSeeOther(f"{ROOT}/")
