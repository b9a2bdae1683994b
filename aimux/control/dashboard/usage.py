"""Usage: sums, a plot and a table, by whatever one wants to know; and what would be with other accounts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from aiohttp import web

from aimux.control.api.tables import Tabular
from aimux.control.api.within import run
from aimux.control.dashboard import charts
from aimux.control.dashboard.page import CALLER, ask, render
from aimux.control.dashboard.rendering import parsed, short
from aimux.control.state import control_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from markupsafe import Markup

routes = web.RouteTableDef()

BY = ("user", "group", "token", "model", "account", "provider", "class")
RANGES = {"24h": "24 hours", "7d": "7 days", "30d": "30 days", "90d": "90 days", "365d": "a year"}
MEASURES = {"tokens": "Tokens", "cost_usd": "Cost", "requests": "Requests"}
TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
FILTERS = ("user", "group", "token", "model", "account", "provider", "class")


@dataclass(frozen=True, slots=True)
class Plot:
    """`svg`, what its colours stand for, and the same numbers for a table: a row for each step."""

    svg: Markup
    names: list[str]
    steps: list[str]
    rows: list[list[float]]


@routes.get("/usage")
async def page(request: web.Request) -> web.StreamResponse:
    asked = request.query
    by = asked.get("by", "user") if asked.get("by") in BY else "user"
    since = asked.get("since", "30d") if asked.get("since") in RANGES else "30d"
    measure = asked.get("show", "tokens") if asked.get("show") in MEASURES else "tokens"
    filters = {name: asked[name] for name in FILTERS if asked.get(name)}
    step = "hour" if since == "24h" else "day"
    usage, series = await asyncio.gather(
        ask(request, "GET", "/usage", by=by, since=since, **filters),
        ask(request, "GET", "/usage/series", by=by, since=since, bucket=step, limit=40, **filters),
    )
    query = {"by": by, "since": since, "show": measure, **filters}
    return render(
        request,
        "usage.html",
        title="Usage",
        by=by,
        since=since,
        measure=measure,
        filters=filters,
        all_by=BY,
        ranges=RANGES,
        measures=MEASURES,
        rows=sorted(usage["items"], key=lambda row: -_weight(row, measure)),
        total=usage["total"],
        saved=_saved(usage["total"]),
        chart=plot(series, measure),
        link=lambda **changes: "?" + urlencode({k: v for k, v in {**query, **changes}.items() if v}),
    )


@routes.get("/usage.csv")
async def csv(request: web.Request) -> web.StreamResponse:
    """The table as a file."""
    query = {name: request.query[name] for name in ("by", "since", *FILTERS) if request.query.get(name)}
    usage = await run(control_of(request).api, request[CALLER], "GET", f"/usage?{urlencode(query)}")
    assert isinstance(usage, Tabular)
    name = f"usage-by-{query.get('by', 'user')}.csv"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return web.Response(text=usage.csv(), content_type="text/csv", headers=headers)


def _weight(row: Mapping[str, Any], measure: str) -> float:
    if measure == "tokens":
        return float(
            sum(row[name] for name in ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"))
        )
    return float(row[measure] or 0)


def _saved(total: Mapping[str, Any]) -> float | None:
    """The part of what was sent that came out of the prompt cache."""
    sent = total["input_tokens"] + total["cache_read_tokens"] + total["cache_write_tokens"]
    return total["cache_read_tokens"] / sent if sent else None


def plot(series: Mapping[str, Any], measure: str) -> Plot | None:
    """From `/usage/series`: stacked, the largest first. None where there is nothing."""
    starts = [parsed(start) for start in series["times"]]
    known = [start for start in starts if start is not None]
    found = charts.ranked([charts.Series(one["name"] or "–", _values(one, measure)) for one in series["series"]])
    if not any(sum(one.values) for one in found):
        return None
    hourly = len(known) > 1 and known[1] - known[0] < timedelta(days=1)
    steps = [f"{start:%d %b %H:%M}" if hourly else f"{start:%a %d %b %Y}" for start in known]
    every = max(1, round(len(known) / 8))
    axis = [
        (f"{start:%H:%M}" if hourly else f"{start.day} {start:%b}") if i % every == 0 else ""
        for i, start in enumerate(known)
    ]
    svg = charts.stacked(steps, found, _told(measure), label=f"{MEASURES[measure]} over time", axis=axis)
    rows = [[one.values[i] for one in found] for i in range(len(known))]
    return Plot(svg, [one.name for one in found], steps, rows)


def _values(one: Mapping[str, Any], measure: str) -> list[float]:
    if measure != "tokens":
        return list(map(float, one[measure]))
    return [float(sum(kinds)) for kinds in zip(*(one[name] for name in TOKENS), strict=True)]


def _told(measure: str) -> Callable[[float], str]:
    return (lambda value: f"${value:,.2f}") if measure == "cost_usd" else short
