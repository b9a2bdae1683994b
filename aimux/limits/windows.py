"""Where a calendar window begins and ends, and a moment that people write."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import tzinfo

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MOMENTS = "3d, 12h, friday or 2026-11-27 (until the end of it), 2026-11-27T18:00 or 2026-11-27T18:00+01:00"
"""How one can be written."""
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def bounds(period: str, now: float, zone: tzinfo) -> tuple[float, float]:
    """The `day`, `week` (from Monday) or `month` of `zone` that holds `now`: unix seconds, start <= now < end.

    A window begins at the first moment of its first day: at midnight, or later where the clock is put forward over it.
    """
    here = datetime.fromtimestamp(now, UTC).astimezone(zone)
    first = here.replace(hour=0, minute=0, second=0, microsecond=0, fold=0, tzinfo=None)
    if period == "week":
        first -= timedelta(days=first.weekday())
        after = first + timedelta(days=7)
    elif period == "month":
        first = first.replace(day=1)
        after = (first + timedelta(days=32)).replace(day=1)
    else:
        after = first + timedelta(days=1)
    # Local midnights, not multiples of 24 h: a day in which the clock changes has 23 or 25.
    return first.replace(tzinfo=zone).timestamp(), after.replace(tzinfo=zone).timestamp()


def moment(text: str, now: float, zone: tzinfo) -> float:
    """What somebody writes for a moment to come, as unix seconds: one of MOMENTS. What names no zone is in `zone`.

    Raises ValueError for anything else.
    """
    from aimux.config import parse_duration  # with pydantic, which nobody else here needs

    try:
        today = datetime.fromtimestamp(now, UTC).astimezone(zone).date()
        day = None
        if text.lower() in WEEKDAYS:
            day = today + timedelta(days=(WEEKDAYS.index(text.lower()) - today.weekday()) % 7)
        elif _DATE.fullmatch(text):
            day = datetime.fromisoformat(text).date()
        if day is not None:
            after = day + timedelta(days=1)
            return datetime(after.year, after.month, after.day, tzinfo=zone).timestamp()
        if _DATE.match(text):
            when = datetime.fromisoformat(text)
            return (when.replace(tzinfo=zone) if when.tzinfo is None else when).timestamp()
        return (datetime.fromtimestamp(now, UTC) + timedelta(seconds=parse_duration(text))).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r}: write {MOMENTS}") from None
