"""A span of time, cut into pieces that the ledger has sums of: months, days, hours, and single requests at its ends.

So a year is a few thousand rows, and yet a span is exact.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

from aimux.metering.calendar import DAY, HOUR

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aimux.metering.calendar import Calendar

Level = Literal["requests", "hours", "days", "served", "months"]
"""`served`: days, of everybody together."""
FOREVER = 1 << 62
LATEST = 32_503_680_000_000
"""The year 3000: nothing is later, and calendars go beyond it."""
_AGO = re.compile(r"(\d{1,6})([mhdw])")
_BARE_PLUS = re.compile(r"(?<=\d) (?=\d\d:\d\d$)")
"""What an unencoded `+` of a time zone becomes in a URL."""
_UNITS = {"m": 60_000, "h": HOUR, "d": DAY, "w": 7 * DAY}


class Span(NamedTuple):
    """From `since` to before `until`, milliseconds since 1970."""

    since: int
    until: int = FOREVER


class Piece(NamedTuple):
    """Rows of a level whose start (or time) is in it."""

    level: Level
    since: int
    until: int


def moment(text: str, at: int, calendar: Calendar) -> int:
    """`7d` (that long before `at`; m, h, d and w), a date, or RFC 3339. Raises ValueError with what is wrong."""
    if match := _AGO.fullmatch(text):
        return max(0, at - int(match[1]) * _UNITS[match[2]])
    try:
        when = datetime.fromisoformat(_BARE_PLUS.sub("+", text) if "T" in text else text)
    except ValueError:
        raise ValueError(f"{text!r} is not a time: write it like 7d, 2026-11-26 or 2026-11-26T08:00:00Z") from None
    if when.tzinfo is None:
        when = when.replace(tzinfo=calendar.zone)
    return min(max(0, int(when.timestamp() * 1000)), LATEST)


def pieces(
    span: Span, folded: Mapping[str, int], calendar: Calendar, *, kept_since: int, coarsest: Level = "months"
) -> Iterator[Piece]:
    """The pieces of a span, in the order of time; one of requests lies within an hour.

    `folded`: until when there are `days` and `months`. `kept_since`: since when there are single requests; before that
    a span is made of whole hours. `coarsest`: the largest pieces wanted.
    """
    hour = calendar.hour(span.since)
    first, last = _whole(hour, hour + HOUR, span.since), span.until
    if span.until < FOREVER:
        last = calendar.hour(span.until)
    if span.since < kept_since:
        first = hour
        if last < kept_since:  # also where requests were deleted up to the middle of the span's last hour
            last = _whole(last, last + HOUR, span.until)
    if first > last:  # all within an hour
        yield Piece("requests", *span)
        return
    if span.since < first:
        yield Piece("requests", span.since, first)
    if first < last:
        yield from _hours(Span(first, last), folded, calendar, coarsest)
    if last < span.until:
        yield Piece("requests", last, span.until)


def _hours(span: Span, folded: Mapping[str, int], calendar: Calendar, coarsest: Level) -> Iterator[Piece]:
    first = _whole(calendar.day(span.since), calendar.day(span.since, 1), span.since)
    last = min(folded.get("days", 0), span.until if span.until == FOREVER else calendar.day(span.until))
    if coarsest == "hours" or first >= last:
        yield Piece("hours", *span)
        return
    if span.since < first:
        yield Piece("hours", span.since, first)
    yield from _days(Span(first, last), folded, calendar, coarsest)
    if last < span.until:
        yield Piece("hours", last, span.until)


def _days(span: Span, folded: Mapping[str, int], calendar: Calendar, coarsest: Level) -> Iterator[Piece]:
    first = _whole(calendar.month(span.since), calendar.month(span.since, 1), span.since)
    last = min(folded.get("months", 0), calendar.month(span.until))
    if coarsest == "days" or first >= last:
        yield Piece("days", *span)
        return
    if span.since < first:
        yield Piece("days", span.since, first)
    yield Piece("months", first, last)
    if last < span.until:
        yield Piece("days", last, span.until)


def _whole(start: int, following: int, at: int) -> int:
    return start if start == at else following
