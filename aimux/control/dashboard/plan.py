"""What if: the ledger's requests once more, with so many accounts."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from aimux.control.api.problems import Refused
from aimux.control.dashboard.page import ask, render, told
from aimux.control.dashboard.usage import RANGES
from aimux.control.state import control_of

routes = web.RouteTableDef()

STRATEGIES = {
    "least_used": "the least used first",
    "round_robin": "one after the other",
    "priority": "in the order of their priority",
}
SHARING = {"true": "divided among who is active", "false": "for whoever comes"}


@routes.get("/usage/plan")
async def page(request: web.Request) -> web.StreamResponse:
    """The form; with a query, also what would have happened."""
    asked = request.query
    providers = sorted(control_of(request).api.parts.pools)
    counts = {name: asked[f"accounts.{name}"].strip() for name in providers if asked.get(f"accounts.{name}")}
    values = {name: asked.get(name, "").strip() for name in ("since", "strategy", "fair_share", "window")}
    values["since"] = values["since"] or "30d"
    values["window"] = values["window"].replace(" ", "")
    plans: Any = None
    notices = []
    if asked:
        try:
            plans = await ask(
                request,
                "GET",
                "/plan",
                **values,
                accounts=",".join(f"{name}={count}" for name, count in counts.items()),
            )
        except Refused as refused:
            notices.append({"level": "bad", "text": told(refused)})
    return render(
        request,
        "plan.html",
        title="What if",
        providers=providers,
        counts=counts,
        asked=values,
        plans=plans,
        ranges={name: title for name, (title, _) in RANGES.items()},
        strategies=STRATEGIES,
        sharing=SHARING,
        notices=notices,
    )
