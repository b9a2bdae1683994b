"""Times as the tables have them. Loads no SQLAlchemy."""

from __future__ import annotations

import time

CLOCKS_APART = 60_000
"""Milliseconds by which the clocks of nodes may differ. Something with a longer remaining life than it was given was
made by a wrong clock, and would outlive its time."""


def now() -> int:
    """The present: whole milliseconds since 1970 in UTC."""
    return time.time_ns() // 1_000_000
