"""Usage: sums, a plot and a table, by user, model and the like; and what other accounts would have changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

from aiohttp import web

from aimux.control.api.usage_models import Usage
from aimux.control.api.within import run
from aimux.control.dashboard import charts
from aimux.control.dashboard.page import CALLER, ask, render
from aimux.control.dashboard.rendering import short
from aimux.control.state import control_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from markupsafe import Markup

routes = web.RouteTableDef()

BY = ("user", "group", "token", "model", "account", "provider", "class")
"""What sums may be by, and narrowed to."""
RANGES = {
    "24h": ("24 hours", "hour"),
    "7d": ("7 days", "day"),
    "30d": ("30 days", "day"),
    "90d": ("90 days", "day"),
    "365d": ("year", "month"),
}
"""Span → its label, and the length of a step in its plot."""
DATES = "dates"
"""What the form says in place of one for the days between two dates, of the ledger's time zone."""
MEASURES = {"tokens": "Tokens", "cost_usd": "Cost", "requests": "Requests"}
RANKS = {"tokens": "tokens", "cost_usd": "cost", "requests": "requests"}
ROWS = 50
"""Rows of the table, unless somebody asks for all."""
MOST = 10_000
"""Rows that the API gives at once."""
TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
CENT = 0.01


@dataclass(frozen=True, slots=True)
class Plot:
    """`svg`, the meaning of its colours, and the same numbers for a table: a row for each step that has any."""

    svg: Markup
    names: list[str]
    rows: list[tuple[str, list[float]]]


@routes.get("/usage")
async def page(request: web.Request) -> web.StreamResponse:
    asked = request.query
    by = asked.get("by", "user") if asked.get("by") in BY else "user"
    span = span_of(asked)
    measure = asked.get("show", "tokens") if asked.get("show") in MEASURES else "tokens"
    filters = {name: asked[name] for name in BY if asked.get(name)}
    usage = await ask(
        request,
        "GET",
        "/usage",
        by=by,
        **span.times,
        kinds="true",
        bucket=span.bucket,
        rank=RANKS[measure],
        limit=MOST,
        **filters,
    )
    plain = {"by": by, "since": span.since, **span.days, "show": measure}
    query = plain | filters
    rows = sorted(usage["items"], key=lambda row: -_weight(row, measure))
    return render(
        request,
        "usage.html",
        title="Usage",
        by=by,
        since=span.since,
        days=span.days,
        measure=measure,
        filters=filters,
        all_by=BY,
        ranges={name: f"the last {title}" for name, (title, _) in RANGES.items()} | {DATES: "from … to …"},
        measures=MEASURES,
        rows=rows if asked.get("all") else rows[:ROWS],
        hidden=0 if asked.get("all") else len(rows[ROWS:]),
        total=usage["total"],
        unread=usage["unread"],
        kinds=by_kind(usage),
        tokens=sum(usage["total"][name] for name in TOKENS),
        saved=usage["kinds"]["saved"],
        hit_rate=_hit_rate(usage["total"]),
        chart=plot(usage["series"], measure),
        plain="?" + urlencode(plain),
        link=lambda **changes: "?" + urlencode({k: v for k, v in {**query, **changes}.items() if v}),
    )


@routes.get("/usage.csv")
async def csv(request: web.Request) -> web.StreamResponse:
    """The table as a file."""
    query = {name: request.query[name] for name in ("by", *BY) if request.query.get(name)}
    query |= span_of(request.query).times
    query["limit"] = str(MOST)
    usage = page = await _asked(request, query)
    while page.next is not None:
        page = await _asked(request, query | {"after": page.next})
        usage.items += page.items
    name = f"usage-by-{query.get('by', 'user')}.csv"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return web.Response(text=usage.csv(), content_type="text/csv", headers=headers)


async def _asked(request: web.Request, query: Mapping[str, str]) -> Usage:
    usage = await run(control_of(request).api, request[CALLER], "GET", f"/usage?{urlencode(query)}")
    assert isinstance(usage, Usage)
    return usage


class AskedSpan(NamedTuple):
    """`since` and `days` as the form has them, `times` for the API, and the length of a step in the plot."""

    since: str
    days: dict[str, str]
    times: dict[str, str]
    bucket: str


def span_of(asked: Mapping[str, str]) -> AskedSpan:
    """What was asked for; the last month if dates are to be asked for."""
    since = asked.get("since", "")
    if since != DATES:
        since = since if since in RANGES else "30d"
        return AskedSpan(since, {}, {"since": since}, RANGES[since][1])
    today = datetime.now(UTC).date()
    last = _day(asked.get("to"), today) or today.replace(day=1) - timedelta(days=1)
    first, last = sorted((_day(asked.get("from"), today) or last.replace(day=1), last))
    times = {"since": f"{first}", "until": f"{last + timedelta(days=1)}"}
    length = (last - first).days
    bucket = "hour" if length < 3 else "day" if length < 100 else "month"
    return AskedSpan(since, {"from": f"{first}", "to": f"{last}"}, times, bucket)


def _day(text: str | None, latest: date) -> date | None:
    try:
        return min(date.fromisoformat(text or ""), latest)
    except ValueError:
        return None


def _weight(row: Mapping[str, Any], measure: str) -> float:
    if measure == "tokens":
        return float(sum(row[name] for name in TOKENS))
    return float(row[measure] or 0)


def by_kind(usage: Mapping[str, Any]) -> list[tuple[str, int | None, float]]:
    """Name, tokens and dollars; last, without tokens, what the total has beside the kinds' list prices, if a cent."""
    kinds = ("input", "output", "cache_read", "cache_write")
    found: list[tuple[str, int | None, float]] = [
        (kind.replace("_", " ").capitalize(), usage["total"][f"{kind}_tokens"], usage["kinds"][kind]) for kind in kinds
    ]
    rest = usage["total"]["cost_usd"] - sum(cost for _, _, cost in found)
    return [*found, ("The rest", None, rest)] if abs(rest) >= CENT else found


def _hit_rate(total: Mapping[str, Any]) -> float | None:
    """The part of what was sent that came out of the prompt cache."""
    sent = total["input_tokens"] + total["cache_read_tokens"] + total["cache_write_tokens"]
    return total["cache_read_tokens"] / sent if sent else None


def plot(series: Mapping[str, Any], measure: str) -> Plot | None:
    """Stacked bars from a `UsageSeries`. None if there is nothing."""
    starts = [datetime.fromisoformat(text) for text in series["times"]]
    found = [charts.Series(one["name"] or "–", _values(one, measure)) for one in series["series"]]
    if not any(any(one.values) for one in found):
        return None
    name, tick = {
        "hour": ("{0:%d %b %H:%M}", "{0:%H:%M}"),
        "day": ("{0:%a %d %b %Y}", "{0.day} {0:%b}"),
        "month": ("{0:%B %Y}", "{0:%b}"),
    }[series["bucket"]]
    steps = [name.format(start) for start in starts]
    every = max(1, round(len(starts) / 8)) if series["bucket"] != "month" else 1
    axis = [tick.format(start) if i % every == 0 else "" for i, start in enumerate(starts)]
    svg = charts.stacked(steps, found, _told(measure), label=f"{MEASURES[measure]} over time", axis=axis)
    rows = [(step, [one.values[i] for one in found]) for i, step in enumerate(steps)]
    return Plot(svg, [one.name for one in found], [row for row in rows if any(row[1])])


def _values(one: Mapping[str, Any], measure: str) -> list[float]:
    if measure != "tokens":
        return list(map(float, one[measure]))
    return [float(sum(kinds)) for kinds in zip(*(one[name] for name in TOKENS), strict=True)]


def _told(measure: str) -> Callable[[float], str]:
    return (lambda value: f"${value:,.2f}") if measure == "cost_usd" else short
