"""Fair share: an account's live window divided among those who are active, by weight, and what somebody leaves lent.

The division is weighted max-min fairness: nobody gets more of what is left while an active person with less (for his
weight) still wants some. How much somebody wants is his pace until the window's reset, doubled; whoever has just come
wants all that he can get, so that a returning owner has his share back as soon as the requests under way are over.
Fractions are of the whole window, times are unix seconds, and nothing here looks at a clock.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

ACTIVE_SECONDS = 600.0
"""Who has asked for nothing for so long has left."""
PACE_SECONDS = 1800.0
"""Over how long a pace is measured."""
KNOWN_SECONDS = 600.0
"""After how long somebody's pace says what he will want."""
HEADROOM = 2.0
LEARNED = 0.2
"""Of the newest movement, in what a unit of use moves a window by."""


class Person(NamedTuple):
    """Somebody active: what he has used of the window, his weight, and what more he will want of it (inf: anything)."""

    used: float
    weight: float = 1.0
    wants: float = math.inf


def divide(left: float, people: Mapping[str, Person]) -> dict[str, float]:
    """What everybody gets of what is `left`, so that used and got together are as even, by weight, as can be."""
    # A person joins where the level reaches what he has used, and leaves where it reaches what he wants: between two
    # such places the level rises by what is poured in over the weights of those who take part.
    places: list[tuple[float, float]] = []
    for person in people.values():
        start = person.used / person.weight
        places.append((start, person.weight))
        if math.isfinite(person.wants):
            places.append((start + person.wants / person.weight, -person.weight))
    places.sort()
    level, weight = 0.0, 0.0
    remaining = left
    for place, change in places:
        needed = (place - level) * weight
        if needed >= remaining:
            break
        remaining -= needed
        level, weight = place, weight + change
    if weight > 1e-9:
        level += remaining / weight
    return {name: min(person.wants, max(0.0, level * person.weight - person.used)) for name, person in people.items()}


@dataclass(slots=True)
class _Seen:
    """What is known of somebody: since when and until when he was active, his weight, what he used lately."""

    since: float
    last: float
    weight: float
    lately: deque[tuple[float, float]]


class SharedWindow:
    """One window of one account: whose use has moved it, and whether somebody may move it further.

    The vendor tells how much of it is used, in steps of a hundredth or so; in between, what was metered since the last
    step counts for what it has usually moved the window by. What is used past aimux belongs to nobody.
    """

    def __init__(self) -> None:
        self.used = 0.0
        self.resets_at: float | None = None
        self._parts: dict[str, float] = {}
        self._pending: dict[str, float] = {}
        self._per_unit = 0.0
        self._people: dict[str, _Seen] = {}

    def observe(self, used: float, resets_at: float | None, now: float) -> None:
        """The vendor tells: `used` of the window, and when it begins anew."""
        over = self.resets_at is not None and (now >= self.resets_at or (resets_at or 0.0) > self.resets_at + 60.0)
        if over or used < self.used - 0.05:
            self._parts.clear()
            self._pending.clear()
            for seen in self._people.values():
                seen.lately.clear()
            self.used = used
        elif used > self.used:
            moved, units = used - self.used, sum(self._pending.values())
            if units > 0:
                step = moved / units
                self._per_unit += (LEARNED if self._per_unit else 1.0) * (step - self._per_unit)
                for name, own in self._pending.items():
                    self._parts[name] = self._parts.get(name, 0.0) + own * step
                self._pending.clear()
            self.used = used
        self.resets_at = resets_at

    def asked(self, name: str, weight: float, now: float) -> None:
        """Somebody makes a request."""
        seen = self._people.get(name)
        if seen is None:
            self._people[name] = _Seen(now, now, weight, deque())
            return
        if now - seen.last > ACTIVE_SECONDS:
            seen.since = now
        seen.last, seen.weight = now, weight

    def metered(self, name: str, units: float, now: float) -> None:
        """A request of somebody's is over, and took so much (in whatever unit, always the same)."""
        self._pending[name] = self._pending.get(name, 0.0) + units
        if (seen := self._people.get(name)) is not None:
            seen.last = max(seen.last, now)
            seen.lately.append((now, units))

    def room(self, name: str, now: float) -> float:
        """What somebody who has asked may use of the window now: 0 where the rest of it belongs to others."""
        if self.resets_at is not None and now >= self.resets_at:
            return 1.0
        left = 1.0 - self.used - self._per_unit * sum(self._pending.values())
        if left <= 0:
            return 0.0
        people = {}
        for other, seen in list(self._people.items()):
            if now - seen.last > ACTIVE_SECONDS:
                if now - seen.last > 2 * PACE_SECONDS:
                    del self._people[other]
                continue
            wants = math.inf if other == name else self._wants(seen, now)
            people[other] = Person(self.used_by(other), seen.weight, wants)
        return divide(left, people).get(name, left)

    def used_by(self, name: str) -> float:
        """Somebody's part of what is used."""
        return self._parts.get(name, 0.0) + self._per_unit * self._pending.get(name, 0.0)

    def _wants(self, seen: _Seen, now: float) -> float:
        if now - seen.since < KNOWN_SECONDS or self.resets_at is None or not self._per_unit:
            return math.inf
        while seen.lately and seen.lately[0][0] <= now - PACE_SECONDS:
            seen.lately.popleft()
        units = sum(units for _, units in seen.lately)
        pace = units * self._per_unit / min(PACE_SECONDS, now - seen.since)
        return HEADROOM * pace * (self.resets_at - now)
