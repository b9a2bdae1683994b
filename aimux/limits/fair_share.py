"""Fair share of every account: its vendor's windows, each divided among those who are active on it (fair.py)."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from aimux.limits.fair import SharedWindow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aimux.accounts.quota import Quota
    from aimux.plugin.types import LimitWindow


class Share(NamedTuple):
    """What somebody may still use of a window, and has used of it: parts of the whole."""

    window: LimitWindow
    room: float
    used: float


class News(NamedTuple):
    """Somebody has asked, by this weight (None: not again), and requests took so much."""

    weight: float | None
    units: float


class FairShare:
    """Accounts of one organization have one quota, and are shared as one. While it is not `on`, nothing is counted."""

    def __init__(self, *, on: bool = False, tells: bool = False) -> None:
        """`tells`: what happens here is kept for the other nodes, until `news` is asked for."""
        self.on = on
        self._tells = tells
        self._news: defaultdict[Quota, dict[str, News]] = defaultdict(dict)

    def shares(self, quota: Quota, name: str, weight: float, now: float) -> Iterator[Share]:
        """What `name` has of each of the windows that hold for the whole account."""
        for told, window in self._told(quota, now):
            yield Share(told, window.room(name, weight, now), window.used_by(name))

    def asked(self, quota: Quota, name: str, weight: float, now: float) -> None:
        """Somebody's request goes to this account."""
        if self._tells:
            told = self._news[quota].get(name)
            self._news[quota][name] = News(weight, told.units if told is not None else 0.0)
        for _, window in self._told(quota, now):
            window.asked(name, weight, now)

    def metered(self, quota: Quota, name: str, units: float, now: float) -> None:
        """Somebody's request to this account is over, and took so much."""
        if self._tells:
            told = self._news[quota].get(name, News(None, 0.0))
            self._news[quota][name] = told._replace(units=told.units + units)
        for _, window in self._told(quota, now):
            window.metered(name, units, now)

    def news(self) -> Mapping[Quota, Mapping[str, News]]:
        """What happened since this was last asked for, by quota and name."""
        news, self._news = self._news, defaultdict(dict)
        return news

    def heard(self, quota: Quota, name: str, news: News, now: float) -> None:
        """What happened at another node."""
        for _, window in self._told(quota, now):
            if news.weight is not None:
                window.asked(name, news.weight, now)
            if news.units > 0:
                window.metered(name, news.units, now)

    def remember(self, quota: Quota, window: str, units: Mapping[str, float], now: float) -> None:
        """What was taken of a window since it began, by whom, before this process or while it was not `on`."""
        for told, shared in self._told(quota, now):
            if told.name == window:
                shared.remember(units)

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
