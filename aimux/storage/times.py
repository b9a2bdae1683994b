"""Times as the tables have them. Loads no SQLAlchemy."""

from __future__ import annotations

import time

CLOCKS_APART = 60_000
"""Milliseconds by which the clocks of nodes may differ. What has longer to live than it was ever given was made by a
clock that was wrong, and would outlive its time."""


def now() -> int:
    """The present: whole milliseconds since 1970 in UTC."""
    return time.time_ns() // 1_000_000
