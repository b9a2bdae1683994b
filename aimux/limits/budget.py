"""What is used of a limit in a day, a week or a month of the calendar."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from aimux.limits.rules import LIMITS
from aimux.limits.sums import MINUTE, NEVER, Counter, place_of
from aimux.limits.windows import bounds

if TYPE_CHECKING:
    from datetime import tzinfo

    from aimux.limits.history import History
    from aimux.limits.rules import Grant, Key
    from aimux.limits.shares import Claims, Place
    from aimux.limits.sums import Sums

MARKS = (0.8, 0.95)
"""Of a limit: whoever is interested is told once a window when so much is used."""


class Budget(Counter):
    """A calendar window. `ceiling` is what this node may use of it: all that is granted, or its piece of that, which it
    `holds` once it has taken one.

    `base` was used of it before any node counted it in the way that it is counted now.
    """

    __slots__ = (
        "_before",
        "_low",
        "_zone",
        "base",
        "end",
        "holds",
        "marked",
        "turned",
        "wanted",
    )

    def __init__(self, key: Key, amount: int, zone: tzinfo, sums: Sums, claims: Claims | None) -> None:
        super().__init__(key, amount, sums, claims)
        self._zone = zone
        self._low = 0
        """From how much on that is gone the next piece is asked for at once."""
        self.holds = False
        self.wanted = 0
        """How much would be gone with the largest request that had no room in this node's piece. 0: there is none."""
        self.end = -math.inf
        self.turned = -math.inf
        """A time at which it was in its window, and had the grants that it has."""
        self.next_mark = 0
        self.base = 0
        self._before = (-math.inf, 0, 0, 0)
        """The window before: its start, `used`, `base` and `marked`."""
        self.marked = 0
        """How many of MARKS were told."""

    def set(self, amount: int, grants: tuple[Grant, ...]) -> None:
        super().set(amount, grants)
        self.changes_at = -math.inf
        self.next_mark = 0

    def full(self, need: int, now: float, number: int) -> bool:
        self.turn(now, number)
        gone = self.gone
        short = gone + need > self.ceiling
        if short and self._claims is not None:
            if not self.holds:
                self.claim(now)
            self.wanted = max(self.wanted, gone + need)
            self._claims.ask(self)
        return need > 0 and gone + need > self.ceiling and (self.open or gone >= self.ceiling)

    def turn(self, now: float, number: int) -> None:
        """Begin the window that holds `now`, and take the grants that hold now."""
        if self.start <= now < self.changes_at:
            return
        if self.start - MINUTE < now < self.start:
            now = self.start  # a clock that was set right, or a request that another has overtaken: no window begins
        fresh = not self.start <= now < self.end
        if fresh:
            before, self._before = self._before, (self.start, self.used, self.base, self.marked)
            self.start, self.end = bounds(LIMITS[self.key.limit].period, now, self._zone)
            # A clock that was wrong for a while comes back to the window that it left.
            back = before[0] == self.start
            used, self.base, self.marked = before[1:] if back else (0, 0, 0)
            self._begin(used, number)
        self.changes_at = self.grants_change(now, self.end)
        self.turned = now
        self.next_mark = 0
        self.sums.changed()
        if fresh or self._claims is None:
            self.claim(now)
        else:
            self.offer(now)
            self._claims.ask(self)

    def _begin(self, used: int, number: int) -> None:
        """A window, with so much used and nothing under way."""
        self.gone_from += self.gone - used
        self.used_from += self.used - used
        self.open_from = self.sums.open if self.joined else 0
        self.since = number
        self.wanted = 0
        self.sums.since = max(self.sums.since, number)

    def claim(self, now: float) -> None:
        """Take all there is; or a first piece, by what was last heard of the others. The next one is the exchange's."""
        self.holds = True
        self._hold(self._piece(now))

    def offer(self, now: float) -> int:
        """What this node's next piece would be. If that is less than the one it has, the rest is returned now."""
        piece = self._piece(now, self.wanted)
        self._hold(min(self.ceiling, piece))
        return piece

    def take_piece(self, place: Place, piece: int, now: float) -> None:
        """It is this node's, for everybody to see."""
        if place == self.place:
            self.holds = True
            self._hold(min(piece, self._piece(now, self.wanted)))

    def release(self) -> None:
        """Return what is not gone: nobody asks for it."""
        self.holds = False
        self.wanted = 0
        self._hold(min(self.ceiling, self.gone))

    def _piece(self, now: float, wanted: int = 0) -> int:
        whole = self.whole(now) - self.base
        if self._claims is None:
            return whole
        return self._claims.share(self.place, whole, self.gone, wanted)

    def _hold(self, ceiling: int) -> None:
        self.ceiling = ceiling
        self._low = (self.gone + ceiling) // 2
        self.sums.changed()

    @property
    def place(self) -> Place:
        return place_of(self.key, self.start)

    @property
    def elsewhere(self) -> int:
        """What is gone of the window and not counted here, as far as is known."""
        return self.base + (self._claims.gone(self.place) if self._claims is not None else 0)

    def free_at(self, need: int, now: float) -> float:
        used, whole = self.gone + self.elsewhere, self.whole(now)
        if used + need > whole and (self.open or used >= whole):
            return self.end
        return now + 1.0  # only this node's piece is too small: the exchange brings the next one

    def took(self) -> None:
        assert self._claims is not None
        self.wanted = 0
        self._claims.touched.add(self)
        if self.gone > self._low:
            self._claims.ask(self)

    def settled(self) -> None:
        assert self._claims is not None
        self._claims.touched.add(self)

    def look(self, now: float, number: int) -> tuple[int, float | None]:
        if self._claims is None:
            if not self.start <= now < self.changes_at:
                self.turn(now, number)
            return self.gone + self.base, self.end
        self.full(0, now, number)
        return self.gone + self.elsewhere, self.end

    def add(self, amount: int, at: float, now: float, number: int) -> None:
        """Count what was used without a lease, by a request that began `at`."""
        self.full(0, max(now, self.turned), number)  # never back into the window before
        if self.start <= at < self.end:
            self.found(amount)
            if self._claims is not None:
                self._claims.touched.add(self)

    def found(self, amount: int) -> None:
        """So much was used without a lease."""
        self.used_from -= amount
        self.gone_from -= amount
        self.sums.changed()

    def recount(self, past: History, now: float, number: int) -> None:
        """Count what the ledger has, if it is whole, and else no less: of a window that was in use before this, that a
        wrong clock lost, or of which prices became known."""
        self.full(0, now, number)
        own, self.base = past.of(self.key, self.start, shared=self._claims is not None)
        more = own - self.used if past.whole else max(0, own - self.used)
        self.found(more)
        if more and self._claims is not None:
            self._claims.touched.add(self)  # the others are to hear of it
        self.claim(now)

    def passed(self, now: float) -> float | None:
        """The highest of MARKS that was reached since this was last asked, else None."""
        if self.marked == len(MARKS):
            self.next_mark = NEVER
            return None
        whole, used = self.whole(now), self.used + self.elsewhere
        mark = MARKS[self.marked] * whole
        if used < mark:
            # What others use may come near the mark at any time, and `now` may be before the latest grant.
            if self._claims is None and self.turned <= now < self.changes_at:
                self.next_mark = math.ceil(mark)
            return None
        self.marked = sum(used >= mark * whole for mark in MARKS)
        return MARKS[self.marked - 1]
