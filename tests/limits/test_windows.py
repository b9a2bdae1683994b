"""Days, weeks and months of a time zone, those in which its clock changes too."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.limits.rules import dollars
from aimux.limits.windows import bounds, moment

BERLIN = ZoneInfo("Europe/Berlin")


def window(period: str, moment: str, zone: str = "Europe/Berlin") -> tuple[str, str]:
    where = ZoneInfo(zone)
    start, end = bounds(period, datetime.fromisoformat(moment).replace(tzinfo=where).timestamp(), where)
    return tuple(f"{datetime.fromtimestamp(at, where):%Y-%m-%d %H:%M %a}" for at in (start, end))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("period", "moment", "start", "end"),
    [
        ("day", "2026-11-21T13:05", "2026-11-21 00:00 Sat", "2026-11-22 00:00 Sun"),
        ("day", "2026-11-21T00:00", "2026-11-21 00:00 Sat", "2026-11-22 00:00 Sun"),
        ("week", "2026-11-21T13:05", "2026-11-16 00:00 Mon", "2026-11-23 00:00 Mon"),
        ("week", "2026-11-16T00:00", "2026-11-16 00:00 Mon", "2026-11-23 00:00 Mon"),
        ("month", "2026-12-31T23:59", "2026-12-01 00:00 Tue", "2027-01-01 00:00 Fri"),
        ("month", "2028-02-29T12:00", "2028-02-01 00:00 Tue", "2028-03-01 00:00 Wed"),
    ],
)
def test_a_window_is_the_calendars(period: str, moment: str, start: str, end: str) -> None:
    assert window(period, moment) == (start, end)


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)])
def test_a_day_is_as_long_as_its_clock_says(day: str, hours: int) -> None:
    start, end = bounds("day", datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=BERLIN).timestamp(), BERLIN)
    assert end - start == hours * 3600


def test_a_day_without_a_midnight_begins_at_its_first_moment() -> None:
    """In Beirut the clock went from 0:00 to 1:00 on 2022-03-27."""
    assert window("day", "2022-03-27T12:00", "Asia/Beirut") == ("2022-03-27 01:00 Sun", "2022-03-28 00:00 Mon")
    assert window("day", "2022-03-26T12:00", "Asia/Beirut") == ("2022-03-26 00:00 Sat", "2022-03-27 01:00 Sun")


@pytest.mark.parametrize("period", ["day", "month"])
def test_a_day_with_two_midnights_begins_at_the_first(period: str) -> None:
    """In Havana the clock went from 1:00 to 0:00 on 2026-11-01."""
    zone = ZoneInfo("America/Havana")
    first = datetime(2026, 11, 1, tzinfo=zone).timestamp()
    assert {bounds(period, first + quarter * 900, zone)[0] for quarter in range(96)} == {first}


@given(
    st.sampled_from(("day", "week", "month")),
    st.sampled_from(sorted(available_timezones())),
    st.floats(0, 4e9, allow_nan=False),
)
def test_windows_follow_each_other_without_a_gap(period: str, zone: str, now: float) -> None:
    where = ZoneInfo(zone)
    start, end = bounds(period, now, where)
    assert start <= now < end
    assert bounds(period, start, where) == (start, end)
    assert bounds(period, end, where)[0] == end
    assert end - start <= timedelta(days=32).total_seconds()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "$0.00"),
        (1e-9, "$0.000000001"),
        (0.00000123, "$0.0000012"),
        (0.001, "$0.001"),
        (0.0012345, "$0.0012"),
        (0.0099999, "$0.01"),
        (0.01, "$0.01"),
        (1234.5, "$1,234.50"),
    ],
)
def test_less_than_a_cent_is_not_nothing(value: float, text: str) -> None:
    assert dollars(value) == text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("friday", "2026-11-28T00:00:00+01:00"),
        ("Monday", "2026-12-01T00:00:00+01:00"),
        ("2027-03-28", "2027-03-29T00:00:00+02:00"),
        ("2026-12-01T18:00", "2026-12-01T18:00:00+01:00"),
        ("2026-12-01T18:00:00Z", "2026-12-01T19:00:00+01:00"),
        ("36h", "2026-11-28T12:30:00+01:00"),
    ],
)
def test_a_day_ends_in_the_zone_of_the_limits(text: str, told: str) -> None:
    now = datetime(2026, 11, 27, 0, 30, tzinfo=BERLIN).timestamp()  # in UTC it is Thursday
    assert datetime.fromtimestamp(moment(text, now, BERLIN), BERLIN).isoformat() == told


@pytest.mark.parametrize("text", ["", "soon", "9999-12-31", "2026-13-01", "2026-11-27T25:00", "99999999d", "friday 5"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write 3d, 12h, friday"):
        moment(text, 1_792_000_000.0, BERLIN)
