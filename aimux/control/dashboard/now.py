"""Now: the state of the accounts, who is on them, and what needs attention."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import web

from aimux.control.dashboard import account_views, live
from aimux.control.dashboard.page import ask, away, every, go, part, render
from aimux.control.state import control_of, unwritten

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aimux.control.state import Control

routes = web.RouteTableDef()
TEMPLATE = "now.html"
PARTS = ("alerts", "sums", "accounts", "running", "notices")
TOLD = 8
"""Notices that are shown …"""
MOST_ALERTS = 5
"""… and alerts, worst first: nearly all of many accounts may be cooling down, and there is more to see here."""


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
    few = len(accounts) <= account_views.AT_ONCE
    return {
        "accounts": accounts if few else account_views.busy_first(accounts)[: account_views.AT_ONCE],
        "serving": sum(account["status"] == "healthy" for account in accounts),
        "count": len(accounts),
        "running": running,
        "troubles": [notice["text"] for notice in away(request)] + _troubles(control_of(request)),
        "alerts": account_views.alerts(accounts),
        "most_alerts": MOST_ALERTS,
        "told": told["items"][:TOLD],
        "more": len(told["items"][TOLD:]),
    }


def _troubles(control: Control) -> list[str]:
    """What is wrong with the disk, as sentences: requests are still served."""
    found = []
    ledger = control.metering.ledger.status() or {}
    if "disk" in ledger:
        found.append(f"The disk takes no requests ({ledger['disk']}); {ledger['unsaved_requests']} wait in memory.")
    if ledger.get("lost_requests"):
        found.append(f"Requests that are missing in the ledger: {ledger['lost_requests']}.")
    return found + [f"The state of accounts is not kept: {trouble}." for trouble in unwritten(control)]
