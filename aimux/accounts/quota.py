"""Limits of one owner as the upstream reported them. Accounts of one organization share a quota, others have one
each."""

from __future__ import annotations

import math
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from aimux.accounts.parked import Cooldown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from aimux.plugin.types import LimitWindow

FLOOR = 1.0
"""No cooldown is shorter: an upstream's `retry-after: 0.02` is an invitation to a storm."""
CEILING = 31 * 86400.0
"""The longest limit that any upstream has, a month's spending; a reset beyond it is a mistake."""
UNTOLD = 30.0
"""How long to stay away when the upstream limits but doesn't say for how long."""
NO_DATE = 253_402_300_800.0
"""The end of the last year that a calendar has, in unix seconds."""
MOST_PAID = 100
MOST_MODELS = 100
"""Cooldowns at the same time: clients choose models' names."""
FULL = 1.0 - 1e-9
"""Of a window: it is used up."""
DOUBT = 60.0
"""From then on any answer with room in its headers ends a cooldown whose cause no window showed."""


class Quota:
    """Windows by name, cooldowns by model (`""`: the whole quota). `listeners` are called after every change.

    `used` and `changes_at` are kept ready for the ranking: both move only at a change or when `changes_at` has passed.
    """

    __slots__ = (
        "changes_at",
        "cooldowns",
        "full_for_some",
        "full_since",
        "listeners",
        "organization",
        "paid",
        "paid_since",
        "shared",
        "used",
        "windows",
    )

    def __init__(self, organization: str | None = None) -> None:
        """`organization`: whose it is; None for an account of nobody's."""
        self.organization = organization
        self.windows: dict[str, LimitWindow] = {}
        self.cooldowns: dict[str, Cooldown] = {}
        self.listeners: list[Callable[[], None]] = []
        self.used = 0.0
        """Use of the tightest window that holds for everything: 0 is unused (or not reported), 1 is full."""
        self.changes_at = math.inf
        self.full_for_some = False
        """A window that holds for some models is used up, and the upstream does not say for which."""
        self.paid: dict[str, float] = {}
        """Models that are known to be among them because an answer was paid extra usage, and until when."""
        self.paid_since: dict[str, float] = {}
        """When that answer came."""
        self.full_since: dict[str, float] = {}
        """By window: when an answer first said that it is used up."""
        self.shared: dict[str, Any] = {}
        """What fair share knows about each window; it ends with the quota."""

    def free_at(self, model: str) -> float:
        """When this model may be used, unix seconds; in the past if it may be used now."""
        cooldowns = self.cooldowns
        if not cooldowns:
            return 0.0
        free = cooldowns[""].until if "" in cooldowns else 0.0
        if model and model in cooldowns:
            free = max(free, cooldowns[model].until)
        return free

    def cooling(self, now: float, model: str = "") -> Cooldown | None:
        """The cooldown of the whole quota, or of one model."""
        cooldown = self.cooldowns.get(model)
        return cooldown if cooldown is not None and cooldown.until > now else None

    def told_at(self, model: str, now: float) -> float:
        """When the latest of the cooldowns began that keep this model away; infinity: none does."""
        told = (cooldown.since for cooldown in (self.cooling(now), self.cooling(now, model)) if cooldown is not None)
        return max(told, default=math.inf)

    def spent_until(self, model: str, now: float) -> float:
        """Until when no included usage is left for a model, so that what is served is paid extra usage; 0.0: some is
        left."""
        until = self.paid.get(model, 0.0) if self.paid else 0.0
        for window in self.windows.values():
            if window.scope is None and (window.used or 0.0) >= FULL and not _over(window, now):
                until = max(until, now + UNTOLD if window.resets_at is None else window.resets_at)
        return until if until > now else 0.0

    def spent_since(self, model: str, now: float) -> float:
        """Since when `spent_until` is not 0.0; 0.0: unknown."""
        full = [
            self.full_since.get(window.name, 0.0)
            for window in self.windows.values()
            if window.scope is None and _full(window, now)
        ]
        return min(full) if full else self.paid_since.get(model, 0.0)

    def note_paid(self, model: str, now: float) -> None:
        """An answer of this model was paid extra usage. If no window of the whole account explains that, one that holds
        for this model does."""
        if self.spent_until("", now):
            return
        full = [w for w in self.windows.values() if w.scope is not None and (w.used or 0.0) >= FULL]
        resets = [w.resets_at for w in full if w.resets_at is not None and w.resets_at > now]
        if resets:
            if len(self.paid) >= MOST_PAID:
                self._forget_paid()
            if self.paid.get(model, 0.0) <= now:
                self.paid_since[model] = now
            self.paid[model] = min(resets)

    def _forget_paid(self) -> None:
        self.paid.clear()
        self.paid_since.clear()

    def cool(self, now: float, *, until: float | None, reason: str, model: str = "") -> None:
        """Stay away until the upstream's own reset, within reason: at least a second, at most its latest window. A
        model's limit may have a window that no other answer tells of, and so ends when it says."""
        if until is None and self.cooling(now, model):
            return
        known = () if model else self.windows.values()
        resets = [w.resets_at for w in known if w.resets_at is not None and w.resets_at > now]
        latest = max(resets, default=now + CEILING)
        wanted = now + UNTOLD if until is None or math.isnan(until) else until
        self.cooldowns[model] = Cooldown(max(now + FLOOR, min(wanted, latest, now + CEILING)), now, reason)
        if len(self.cooldowns) > MOST_MODELS:
            del self.cooldowns[min(filter(None, self.cooldowns), key=lambda one: self.cooldowns[one].until)]
        self._changed(now)

    def observe(self, limits: Sequence[LimitWindow], now: float) -> None:
        """Take what an answer's headers reported, and end cooldowns that they prove wrong.

        A window that turned from rejected to allowed is proof. If no window showed the cause, room in all of them is
        proof only after a while: the answer may belong to a request that was sent before the limit was hit.
        """
        if self.cooldowns:
            self._end_disproved(limits, now)
        windows, changed = self.windows, now >= self.changes_at
        for window in limits:
            before = windows.get(window.name)
            if before is not window and before != window:  # providers keep what they have read
                now_told = windows[window.name] = _possible(window)
                changed = True
                if now_told.used is not None and now_told.used >= FULL and not _full(before, now):
                    self.full_since[window.name] = now
        if changed:
            self._changed(now)

    def _end_disproved(self, limits: Sequence[LimitWindow], now: float) -> None:
        for model, cooldown in list(self.cooldowns.items()):
            # A scope's words are the provider's own, so any scoped window may be the one behind a model's cooldown.
            told = [window for window in limits if (window.scope is not None) == bool(model)]
            if told and not any(window.status == "rejected" for window in told):
                recovered = any(self._rejected(window.name, now) for window in told)
                if now - cooldown.since >= (FLOOR if recovered else DOUBT):
                    del self.cooldowns[model]
                    self.changes_at = now

    def distrust(self, now: float) -> bool:
        """End cooldowns that began at a time in the future: the clock was wrong then. True if there were any."""
        wrong = [model for model, cooldown in self.cooldowns.items() if cooldown.since > now]
        for model in wrong:
            del self.cooldowns[model]
        if wrong:
            self._changed(now)
        return bool(wrong)

    def end_cooldowns(self, now: float) -> None:
        """A person says that they are over. If not, the next answer tells."""
        self.cooldowns.clear()
        self._changed(now)

    def settle(self, now: float) -> None:
        """Bring `used` and `changes_at` up to `now`, and drop what is over."""
        used, changes_at, full_for_some = 0.0, math.inf, False
        if self.cooldowns:
            self.cooldowns = {model: cooldown for model, cooldown in self.cooldowns.items() if cooldown.until > now}
            changes_at = min((cooldown.until for cooldown in self.cooldowns.values()), default=math.inf)
        for window in self.windows.values():
            resets_at = window.resets_at
            if resets_at is not None:
                if resets_at <= now:
                    continue
                if resets_at < changes_at:
                    changes_at = resets_at
            if window.scope is None:
                part = 1.0 if window.status == "rejected" else window.used
                if part is not None and part > used:
                    used = part
            elif window.used is not None and window.used >= FULL:
                full_for_some = True
        if not full_for_some and self.paid:
            self._forget_paid()
        self.used, self.changes_at, self.full_for_some = min(1.0, used), changes_at, full_for_some

    def absorb(self, other: Quota, now: float) -> None:
        """Take over what another account knows, because it turned out to be the same quota."""
        for name, window in other.windows.items():
            if name not in self.windows:
                self.windows[name] = window
                if name in other.full_since:
                    self.full_since[name] = other.full_since[name]
        for model, cooldown in other.cooldowns.items():
            if model not in self.cooldowns or self.cooldowns[model].until < cooldown.until:
                self.cooldowns[model] = cooldown
        self._changed(now)

    def replace(
        self,
        windows: dict[str, LimitWindow],
        cooldowns: dict[str, Cooldown],
        now: float,
        full_since: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Take these instead of what is known."""
        self.full_since = dict(full_since)
        if (windows, cooldowns) != (self.windows, self.cooldowns):
            self.windows, self.cooldowns = windows, cooldowns
            self._changed(now)

    def _rejected(self, name: str, now: float) -> bool:
        window = self.windows.get(name)
        return window is not None and window.status == "rejected" and not _over(window, now)

    def _changed(self, now: float) -> None:
        self.settle(now)
        for listener in self.listeners:
            listener()


def _possible(window: LimitWindow) -> LimitWindow:
    """The same without figures that can't be: they are compared, kept and shown as dates."""
    used, resets_at = window.used, window.resets_at
    if used is not None and not 0.0 <= used < math.inf:
        window = replace(window, used=0.0 if -math.inf < used < 0.0 else None)
    if resets_at is not None and not 0.0 <= resets_at < NO_DATE:
        window = replace(window, resets_at=None)
    return window


def _full(window: LimitWindow | None, now: float) -> bool:
    return window is not None and window.used is not None and window.used >= FULL and not _over(window, now)


def _over(window: LimitWindow, now: float) -> bool:
    return window.resets_at is not None and window.resets_at <= now
