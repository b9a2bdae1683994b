"""Times as the tables have them. Loads no SQLAlchemy."""

from __future__ import annotations

import time


def now() -> int:
    """The present: whole milliseconds since 1970 in UTC."""
    return time.time_ns() // 1_000_000
