"""How times are written, and by which sums a span is answered."""

from __future__ import annotations

from typing import get_args
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aimux.metering.calendar import HOUR, Calendar
from aimux.metering.spans import FOREVER, LATEST, Level, Span, moment, pieces

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


# Around changes of the clock in spring, and of the year; and around the present of a ledger.
TIMES = st.sampled_from([1_774_738_800_000, 1_793_491_200_000, 1_767_222_000_000]).flatmap(
    lambda at: st.integers(at - 80 * 86_400_000, at + 80 * 86_400_000)
) | st.integers(1_770_000_000_000, AT)


@given(
    zone=st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata", "America/New_York", "America/Havana"]),
    times=st.tuples(TIMES, TIMES, TIMES, TIMES),
    whole=st.sets(st.sampled_from(["since", "until", "kept_since"])),
    ends=st.booleans(),
    near=st.integers(0, 3 * HOUR),
    coarsest=st.sampled_from(["months", "days", "hours"]),
)
@settings(max_examples=500)
def test_pieces_are_the_span_in_the_largest_sums_that_there_are(
    zone: str, times: tuple[int, int, int, int], whole: set[str], ends: bool, near: int, coarsest: Level
) -> None:
    calendar = Calendar(ZoneInfo(zone))
    since, until = sorted(times[:2])
    kept_since = times[2] if near % 2 else until - near
    since, until, kept_since = (
        calendar.day(at) if name in whole else at
        for name, at in (("since", since), ("until", until), ("kept_since", kept_since))
    )
    until = max(until, since + 1) if ends else FOREVER
    folded = {"days": calendar.day(times[3]), "months": calendar.month(times[3] - near)}
    found = list(pieces(Span(since, until), folded, calendar, kept_since=kept_since, coarsest=coarsest))
    first, last = since, until
    if since < kept_since:
        first = calendar.hour(since)
        if calendar.hour(min(until, LATEST)) < kept_since and calendar.hour(until) != until:
            last = calendar.hour(until) + HOUR
    assert (found[0].since, found[-1].until) == (first, last)
    starts = {"hours": calendar.hour, "days": calendar.day, "months": calendar.month}
    for piece, after in zip(found, [*found[1:], None], strict=True):
        assert piece.since < piece.until
        assert after is None or piece.until == after.since
        if piece.level == "requests":
            assert piece.since >= kept_since
            assert calendar.hour(piece.until - 1) == calendar.hour(piece.since) if piece.until < FOREVER else False
            continue
        start = starts[piece.level]
        assert start(piece.since) == piece.since
        assert piece.until == FOREVER or start(piece.until) == piece.until
        assert piece.until <= folded.get(piece.level, FOREVER)
        assert get_args(Level).index(piece.level) <= get_args(Level).index(coarsest)
        # Nothing that a larger sum has: what lies before one is the end of a period, what lies behind the beginning.
        larger = {"hours": "days", "days": "months"}.get(piece.level)
        if larger is None or coarsest == piece.level or (larger == "months" and coarsest == "days"):
            continue
        end = min(piece.until, folded[larger])
        following = calendar.day(piece.since, 1) if larger == "days" else calendar.month(piece.since, 1)
        period = piece.since if starts[larger](piece.since) == piece.since else following
        after_it = calendar.day(period, 1) if larger == "days" else calendar.month(period, 1)
        assert end < after_it, "a whole period of larger sums"
