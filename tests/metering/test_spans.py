"""How times are written, and by which sums a span is answered."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from aimux.metering.calendar import Calendar
from aimux.metering.spans import LATEST, Span, moment, pieces

from .by_hand import AT
from .support import DAY


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7d", AT - 7 * 86_400_000),
        ("90m", AT - 90 * 60_000),
        ("2w", AT - 14 * 86_400_000),
        ("2026-11-26T12:00:00Z", AT),
        ("2026-11-26T13:00:00+01:00", AT),
        ("2026-11-26T13:00:00", AT),
        ("2026-11-01", AT - int(25 * DAY * 1000) - 13 * 3_600_000),
        ("99999w", 0),
        ("2026-11-26T13:00:00 01:00", AT),  # a `+` that was not encoded in a URL
        ("0001-01-01", 0),
        ("9999-12-31", LATEST),
        ("9999-12-31T23:59:59-23:59", LATEST),
    ],
)
def test_how_a_time_is_written(text: str, expected: int) -> None:
    assert moment(text, AT, Calendar(ZoneInfo("Europe/Berlin"))) == expected


@pytest.mark.parametrize("text", ["", "7", "d", "7y", "yesterday", "2026-13-01", "1e9d"])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write it like 7d"):
        moment(text, AT, Calendar(ZoneInfo("UTC")))


def test_a_year_is_read_as_months() -> None:
    calendar = Calendar(ZoneInfo("Europe/Berlin"))
    folded = {"days": calendar.day(AT), "months": calendar.month(AT)}
    found = list(pieces(Span(AT - 365 * 86_400_000 + 5), folded, calendar, kept_since=AT - 90 * 86_400_000))
    assert [piece.level for piece in found] == ["hours", "days", "months", "days", "hours"]
    assert [piece.since for piece in found[1:]] == [piece.until for piece in found[:-1]]
