"""Operations on usage: who used what, and what it cost."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aimux.control.api.operations import Table
from aimux.control.api.parts import Parts  # noqa: TC001 - the table reads the annotations
from aimux.control.api.problems import Fault, Refused
from aimux.control.api.usage_models import (
    AccountWindow,
    AccountWindows,
    Kinds,
    OwnUsageQuery,
    RequestQuery,
    Series,
    SeriesQuery,
    SpanQuery,
    Sums,
    Usage,
    UsageQuery,
    UsageSeries,
)
from aimux.control.api.views import moment as moment_of
from aimux.control.principal import Principal, Role
from aimux.metering.calendar import DAY
from aimux.metering.reports import lines_of
from aimux.metering.rows import NANO
from aimux.metering.spans import FOREVER, Span, moment
from aimux.metering.usage import SERVED, Bucket, By, Filter, Item, Lines, Points, Report
from aimux.storage.times import now

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aimux.metering.conversations import Place
    from aimux.metering.metering import Metering
    from aimux.metering.windows import Compared

operation = Table()
MOST_POINTS = 10_000
REST = "other"
PICO = 10**12
LARGEST = 7
"""Series in a plot beside a table: together with the one for all others they are as many as distinguishable colours."""


@operation("GET", "/usage", "Sum up usage by user, model, day, …", errors=(404,), role=Role.VIEWER)
async def show_usage(parts: Parts, query: UsageQuery) -> Usage:
    """Up to the last finished request. As CSV for callers who accept `text/csv`."""
    metering, only, span = parts.metering, filter_of(query), span_of(parts.metering, query)
    by, bucket, reports = query.by, query.bucket, metering.reports
    if by in {"conversation", "day", "hour"}:
        return await _usage(parts, by, query, only)
    await metering.ledger.catch_up()
    models: Mapping[tuple[str, str], Item] | None = None
    points: Points | None = None
    if query.kinds and bucket is not None and by in SERVED:
        answer, models, points = await reports.usage_over_time(by, span, only, bucket)
    elif query.kinds:
        answer, models = await reports.usage_of_models(by, span, only)
    else:
        answer = await reports.usage(by, span, only)
    usage = _page(parts, answer, by, query)
    usage.unread = await _unread(parts, span, only)
    if models is not None:
        usage.kinds = _kinds(metering, models)
    if bucket is not None:
        names = [item.name for item in sorted(answer.items, key=lambda item: (-_rank(item, query.rank), item.name))]
        if points is None:
            lines = await reports.lines(by, span, only, bucket, LARGEST, names)
        else:
            lines = lines_of(points, names, LARGEST)
        usage.series = _series(metering, span, bucket, lines)
    return usage


def _rank(item: Item, rank: str) -> int:
    if rank == "tokens":
        return item.tokens
    return item.cost if rank == "cost" else item.requests


def _kinds(metering: Metering, models: Mapping[tuple[str, str], Item]) -> Kinds:
    sums, at = dict.fromkeys(Kinds.model_fields, 0), now()
    for (provider, model), item in models.items():
        rates = metering.prices.rates(provider, model, at)
        if rates is None:
            continue
        written_1h = min(item.cache_write_1h, item.cache_write)
        written = (item.cache_write - written_1h) * rates.cache_write + written_1h * rates.cache_write_1h
        reasoning = min(item.reasoning, item.output)
        sums["input"] += item.input * rates.input
        sums["output"] += (item.output - reasoning) * rates.output + reasoning * rates.reasoning
        sums["cache_read"] += item.cache_read * rates.cache_read
        sums["cache_write"] += written
        cached = item.cache_read + item.cache_write
        sums["saved"] += cached * rates.input - item.cache_read * rates.cache_read - written
    return Kinds(**{kind: round(pico / PICO, 6) for kind, pico in sums.items()})


@operation("GET", "/me/usage", "Sum up one's own usage", errors=(404,), role=Role.MEMBER)
async def show_own_usage(parts: Parts, query: OwnUsageQuery, caller: Principal) -> Usage:
    """What the caller used, with whichever token."""
    if caller.user is None:
        raise Refused(404, "no-user", "The admin key belongs to no user: it has used nothing.", remedy="see /usage")
    only = Filter(user=caller.user.name, provider=query.provider, model=query.model, request_class=query.request_class)
    return await _usage(parts, query.by, query, only)


@operation("GET", "/usage/series", "Plot usage over time", errors=(409,), role=Role.VIEWER)
async def plot_usage(parts: Parts, query: SeriesQuery) -> UsageSeries:
    """Points without gaps, the series with the highest cost first; the rest is summed up as `other`."""
    metering = parts.metering
    span = span_of(metering, query)
    bucket = query.bucket or _fitting(span, split=query.by is not None)
    await metering.ledger.catch_up()
    return _series(
        metering, span, bucket, await metering.reports.lines(query.by, span, filter_of(query), bucket, query.limit)
    )


def _series(metering: Metering, span: Span, bucket: Bucket, lines: Lines) -> UsageSeries:
    named, rest = lines
    shown = [*named.items(), *([(REST, rest)] if rest else [])]
    times = _times(metering, span, bucket, min((start for _, points in shown for start in points), default=None))
    nothing, zone = Item(""), UTC if bucket == "hour" else metering.calendar.zone
    return UsageSeries(
        bucket=bucket,
        times=[datetime.fromtimestamp(time / 1000, zone) for time in times],
        series=[_line(name, [points.get(time, nothing) for time in times]) for name, points in shown],
    )


@operation("GET", "/usage/accounts", "Compare what was metered with the vendors' own windows", role=Role.VIEWER)
async def compare_accounts(parts: Parts, query: SpanQuery) -> AccountWindows:
    """If a window moved and nothing was metered, somebody used the account outside aimux."""
    return AccountWindows(items=[_window(one) for one in await parts.metering.windows(span_of(parts.metering, query))])


def _window(one: Compared) -> AccountWindow:
    metered = one.metered or Item("")
    explained = one.moved - one.unexplained
    return AccountWindow(
        account=f"{one.provider}/{one.account}",
        window=one.window,
        used=one.used,
        resets_at=None if one.resets_at is None else moment_of(one.resets_at / 1000),
        moved=round(one.moved, 6),
        unexplained=round(one.unexplained, 6),
        requests=metered.requests,
        tokens=metered.tokens,
        cost_usd=metered.cost / NANO,
        tokens_per_percent=round(metered.tokens / explained / 100, 1) if explained > 0.0001 else None,
    )


async def _usage(parts: Parts, by: By, query: OwnUsageQuery | UsageQuery, only: Filter) -> Usage:
    metering = parts.metering
    span = span_of(metering, query)
    await metering.ledger.catch_up()
    if by == "conversation":
        usage = await _conversations(metering, query, span, only)
    else:
        usage = _page(parts, await metering.reports.usage(by, span, only), by, query)
    usage.unread = await _unread(parts, span, only)
    return usage


async def _unread(parts: Parts, span: Span, only: Filter) -> int | None:
    if any(value is not None for value in only._replace(user=None, provider=None)):
        return None
    return await parts.deposits.unread(span.since, span.until, only.user, only.provider)


def _page(parts: Parts, answer: Report, by: By, query: OwnUsageQuery | UsageQuery) -> Usage:
    start = _number(query.after)
    items = answer.items[start : start + query.limit]
    following = start + query.limit
    return Usage(
        by=by,
        items=[{by: item.name, **_beside(parts, by, item.name), **_sums(item).model_dump()} for item in items],
        total=_sums(answer.total),
        next=str(following) if following < len(answer.items) else None,
    )


def _beside(parts: Parts, by: By, name: str) -> dict[str, str]:
    """Whose a token is, and what for: nobody knows one by its id."""
    if by != "token":
        return {}
    token = parts.people.directory.token(name)
    return {"user": "", "label": ""} if token is None else {"user": token.user, "label": token.label}


async def _conversations(metering: Metering, query: OwnUsageQuery | UsageQuery, span: Span, only: Filter) -> Usage:
    after = None if query.after is None else _place(query.after)
    found, total = await metering.reports.conversations(span, only, query.limit + 1, after)
    page = found[: query.limit]
    return Usage(
        by="conversation",
        items=[{"conversation": item.name, "user": place[2], **_sums(item).model_dump()} for place, item in page],
        total=_sums(total),
        next=_named(page[-1][0]) if len(found) > len(page) else None,
    )


def span_of(metering: Metering, query: SpanQuery) -> Span:
    """The span that a query means. Refused 422."""
    since = time_of(metering, "since", query.since)
    if query.until is None:
        return Span(since, max(since, FOREVER))
    until = time_of(metering, "until", query.until)
    if until < since:
        raise _wrong("until", "it is before `since`")
    return Span(since, until)


def time_of(metering: Metering, name: str, text: str) -> int:
    """A time that was given. Refused 422."""
    try:
        return moment(text, now(), metering.calendar)
    except ValueError as error:
        raise _wrong(name, str(error)) from None


def filter_of(query: UsageQuery | SeriesQuery | RequestQuery) -> Filter:
    """Which requests a query means."""
    return Filter(
        query.user,
        query.group,
        query.token,
        query.provider,
        query.account,
        query.model,
        query.request_class,
        query.client,
    )


def _wrong(where: str, message: str) -> Refused:
    fault = Fault(where=where, message=message)
    return Refused(422, "invalid", f"{where} is wrong: {message}.", errors=[fault])


def _no_page() -> Refused:
    return Refused(404, "no-page", "There is no such page.", remedy="`after` is the `next` of the page before")


def _named(place: Place) -> str:
    """What `_place` reads: at most `MOST_AFTER` characters, as names are of 100 and conversations' of 128."""
    return urlsafe_b64encode(json.dumps(place, ensure_ascii=False).encode()).decode()


def _place(after: str) -> Place:
    """The conversation after which a page begins: its hour, its name and its user. Refused 404."""
    try:
        hour, name, user = json.loads(urlsafe_b64decode(after))
    except (ValueError, TypeError, RecursionError):
        raise _no_page() from None
    known = type(hour) is int and 0 <= hour <= FOREVER and isinstance(name, str) and isinstance(user, str)
    if not known or not (name.isprintable() and user.isprintable()):  # no database takes it
        raise _no_page()
    return hour, name, user


def _number(after: str | None) -> int:
    if after is None:
        return 0
    if not after.isdecimal():
        raise _no_page()
    return int(after)


def _sums(item: Item) -> Sums:
    return Sums(
        requests=item.requests,
        input_tokens=item.input,
        output_tokens=item.output,
        cache_read_tokens=item.cache_read,
        cache_write_tokens=item.cache_write,
        reasoning_tokens=item.reasoning,
        cost_usd=item.cost / NANO,
        unpriced_requests=item.unpriced,
    )


def _line(name: str, points: list[Item]) -> Series:
    return Series(
        name=name,
        requests=[point.requests for point in points],
        errors=[point.errors for point in points],
        input_tokens=[point.input for point in points],
        output_tokens=[point.output for point in points],
        cache_read_tokens=[point.cache_read for point in points],
        cache_write_tokens=[point.cache_write for point in points],
        reasoning_tokens=[point.reasoning for point in points],
        cost_usd=[point.cost / NANO for point in points],
        seconds=[point.duration / 1000 for point in points],
    )


def _fitting(span: Span, *, split: bool) -> Bucket:
    """The length of points that can be told apart, and that are read from few rows."""
    length = min(span.until, now()) - span.since
    if length <= 3 * DAY:
        return "hour"
    return "day" if length <= (100 if split else 800) * DAY else "month"


def _times(metering: Metering, span: Span, bucket: Bucket, first: int | None) -> list[int]:
    """When each point begins, from the first one with a request in it. Refused 409 for too many."""
    calendar, end = metering.calendar, min(span.until, now())
    times: list[int] = []
    if first is None:
        return times
    at = first
    while at < end:
        times.append(at)
        if len(times) > MOST_POINTS:
            detail = f"These are more than {MOST_POINTS:,} points."
            raise Refused(409, "too-many-points", detail, remedy="choose a later `since`, or a longer `bucket`")
        if bucket == "hour":
            at = calendar.hour(at + 3_600_000)
        elif bucket == "day":
            at = calendar.day(at, 1)
        else:
            at = calendar.month(at, 1)
    return times
