"""What a person sees who opens aimux's address in a browser."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from aiohttp import web

from aimux.control.state import control_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aimux.gateway.mounts import Mount

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>aimux</title>
<h1>aimux</h1>
<p>This is a gateway to a team's AI accounts, and it is running. It serves programs, not browsers:
point yours at one of these addresses, with the token that you were given.</p>
<ul>
{mounts}
</ul>
"""


def add_routes(app: web.Application) -> None:
    app.router.add_get("/", front_page)


async def front_page(request: web.Request) -> web.StreamResponse:
    mounts = control_of(request).gateway.setup.mounts.mounts
    return web.Response(text=_PAGE.format(mounts=_listed(request, mounts)), content_type="text/html")


def _listed(request: web.Request, mounts: Sequence[Mount]) -> str:
    origin = request.url.origin()
    return "\n".join(f"<li><code>{html.escape(f'{origin}{mount.prefix}')}</code></li>" for mount in mounts)
