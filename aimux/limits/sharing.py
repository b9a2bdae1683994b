"""Fair share of every account: its vendor's windows, each divided among those who are active on it (fair.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from aimux.limits.fair import SharedWindow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aimux.accounts.quota import Quota
    from aimux.plugin.types import LimitWindow


class Share(NamedTuple):
    """What somebody may still use of a window, and has used of it: parts of the whole."""

    window: LimitWindow
    room: float
    used: float


class FairShare:
    """Accounts of one organization have one quota, and are shared as one. While it is not `on`, nothing is counted."""

    def __init__(self, *, on: bool = False) -> None:
        self.on = on

    def shares(self, quota: Quota, name: str, weight: float, now: float) -> Iterator[Share]:
        """What `name` has of each of the windows that hold for the whole account."""
        for told, window in self._told(quota, now):
            yield Share(told, window.room(name, weight, now), window.used_by(name))

    def asked(self, quota: Quota, name: str, weight: float, now: float) -> None:
        """Somebody's request goes to this account."""
        for _, window in self._told(quota, now):
            window.asked(name, weight, now)

    def metered(self, quota: Quota, name: str, units: float, now: float) -> None:
        """Somebody's request to this account is over, and took so much."""
        for _, window in self._told(quota, now):
            window.metered(name, units, now)

    def _told(self, quota: Quota, now: float) -> Iterator[tuple[LimitWindow, SharedWindow]]:
        """Each window as its vendor last told it."""
        known: dict[str, SharedWindow] = quota.shared
        for told in quota.windows.values():
            if told.scope is not None or told.used is None:
                continue
            window = known.get(told.name)
            if window is None:
                window = known[told.name] = SharedWindow()
            if window.told is not told:
                window.told = told
                window.observe(told.used, told.resets_at, now)
            yield told, window
