"""How long an account's renewal waits for its next try while it fails."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aimux.plugin.errors import RefreshUnavailable

FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0
"""Seconds between tries while renewal fails; doubled each time, give or take a fifth."""
LONGEST_TOLD = 3600.0
"""The longest pause that is kept if the authorization server asks for one."""
UNSAVED_PAUSE = 30.0
"""The longest pause while a renewed credential is only in memory, and would be lost with the process."""


class Pauses:
    """One account's: `begin` after each failure, `end` when all is well again."""

    def __init__(self) -> None:
        self.failures = 0
        self.failure: RefreshUnavailable | None = None
        """Why the last renewal failed; None: it did not, though what it gave may wait to be saved."""
        self.until = 0.0
        self._since = 0.0

    def begin(self, now: float, *, unsaved: bool, told: float | None = None) -> None:
        """`told`: the seconds that the authorization server asks for."""
        longest = UNSAVED_PAUSE if unsaved else LONGEST_PAUSE
        pause = min(longest, FIRST_PAUSE * 2**self.failures) * random.uniform(0.8, 1.2)
        if told is not None:
            pause = max(pause, min(told, LONGEST_TOLD))
        self.failures = min(self.failures + 1, 16)
        self._since, self.until = now, now + pause

    def end(self) -> None:
        self.failures, self.failure, self.until = 0, None, 0.0

    def too_early(self, now: float) -> RefreshUnavailable | None:
        """Why the last renewal failed, while it is too early for another try. A pause that begins in the future does
        not count, as in `distrust`."""
        return self.failure if self._since <= now < self.until else None

    def distrust(self, now: float) -> bool:
        """End a pause that began at a time in the future: the clock was wrong then. True if there was one."""
        if self._since <= now:
            return False
        self._since = self.until = now
        return True
