"""Where a calendar window begins and ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import tzinfo


def bounds(period: str, now: float, zone: tzinfo) -> tuple[float, float]:
    """The `day`, `week` (from Monday) or `month` of `zone` that holds `now`: unix seconds, start <= now < end.

    A window begins at the first moment of its first day: at midnight, or later where the clock is put forward over it.
    """
    here = datetime.fromtimestamp(now, UTC).astimezone(zone)
    first = here.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
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
