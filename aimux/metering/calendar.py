"""Hours, days and months of a time zone, in milliseconds since 1970."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import tzinfo

HOUR = 3_600_000
DAY = 24 * HOUR
_QUARTER = HOUR // 4
"""Clocks of time zones only change at a quarter of an hour."""


class Calendar:
    """Where the hours, days and months of `zone` begin. In some zones hours begin at half past UTC's."""

    def __init__(self, zone: tzinfo) -> None:
        self.move(zone)

    def move(self, zone: tzinfo) -> None:
        """Take another zone. Existing sums stay where they are."""
        self.zone = zone
        self._quarter = -1
        self._hour = 0

    def hour(self, at: int) -> int:
        """The start of the hour that holds `at`."""
        quarter = at // _QUARTER
        if quarter != self._quarter:  # most requests are in the same hour as the one before
            offset = self._local(at).utcoffset() or timedelta()
            shift = offset // timedelta(milliseconds=1)
            self._hour = (at + shift) // HOUR * HOUR - shift
            self._quarter = quarter
        return self._hour

    def day(self, at: int, days: int = 0) -> int:
        """The start of the day that holds `at`, or of the one this many days later."""
        first = self._local(at).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
        return self._start(first + timedelta(days=days))

    def month(self, at: int, months: int = 0) -> int:
        """The start of the month that holds `at`, or of the one this many months later."""
        here = self._local(at)
        count = here.year * 12 + here.month - 1 + months
        return self._start(datetime(count // 12, count % 12 + 1, 1))  # noqa: DTZ001 - the zone's is put on below

    def date(self, at: int) -> str:
        """`2026-11-26`."""
        return self._local(at).date().isoformat()

    def _local(self, at: int) -> datetime:
        return datetime.fromtimestamp(at / 1000, UTC).astimezone(self.zone)

    def _start(self, local: datetime) -> int:
        return int(local.replace(tzinfo=self.zone).timestamp()) * 1000
