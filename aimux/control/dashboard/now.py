"""Now: how the accounts fare, who is on them, and what wants attention."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import web

from aimux.control.dashboard import account_views, live
from aimux.control.dashboard.page import ask, every, go, part, render

if TYPE_CHECKING:
    from collections.abc import Mapping

routes = web.RouteTableDef()
TEMPLATE = "now.html"
PARTS = ("alerts", "sums", "accounts", "running", "notices")
TOLD = 8
"""Notices that are shown."""


@routes.get("/")
async def page(request: web.Request) -> web.StreamResponse:
    return render(request, TEMPLATE, title="Now", **await _values(request))


@routes.get("")
async def bare(request: web.Request) -> web.StreamResponse:
    return go(request, "")


@routes.get("/now/live")
async def events(request: web.Request) -> web.StreamResponse:
    return await live.stream(request, _parts)


async def _parts(request: web.Request) -> Mapping[str, str]:
    values = await _values(request)
    return {name: part(request, TEMPLATE, name, values) for name in PARTS}


async def _values(request: web.Request) -> dict[str, Any]:
    accounts = account_views.rows(await every(request, "/accounts"))
    running, told = await asyncio.gather(ask(request, "GET", "/live"), ask(request, "GET", "/notices"))
    on: dict[str, list[str]] = {}
    for one in running["items"]:
        on.setdefault(f"{one['provider']}/{one['account']}", []).append(one["user"] or "somebody")
    for account in accounts:
        there = on.get(account["id"], ())
        account["people"] = sorted(set(there))
        account["in_flight"] = max(account["in_flight"], len(there))  # that of this node, those of all
    return {
        "accounts": accounts,
        "running": running,
        "alerts": account_views.alerts(accounts),
        "told": told["items"][:TOLD],
        "more": len(told["items"][TOLD:]),
    }
