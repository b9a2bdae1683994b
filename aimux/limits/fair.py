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
"""Of the newest step, in what a unit of use moves a window by."""
STEP = 0.01
ROOM_SECONDS = 1.0
AHEAD_SECONDS = 60.0
"""Who was last seen so long from now was seen by a clock that was wrong. (A request may end some moments ahead.)"""


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

    def correct(self, now: float) -> None:
        """Have somebody who was seen by a clock that was ahead be seen now: else he would be active until that time."""
        if self.last > now + AHEAD_SECONDS:
            self.since = self.last = now
            self.lately.clear()


class SharedWindow:
    """One window of one account: whose use has moved it, and whether somebody may move it further.

    The vendor tells how much of it is used, in steps of a hundredth. Each step is put down to those whose requests have
    ended since the one before it, by what those took; what is used past aimux in between goes with it, or is nobody's.
    In between, what was metered counts for what as much has usually moved the window by.
    """

    def __init__(self) -> None:
        self.told: object = None
        """What `observe` was last told, for whoever tells."""
        self.used = 0.0
        self.resets_at: float | None = None
        self._parts: dict[str, float] = {}
        self._pending: dict[str, float] = {}
        self._per_unit = 0.0
        self._people: dict[str, _Seen] = {}
        self._rooms: dict[str, tuple[float, float]] = {}
        """What `room` said, and until when that is good enough."""

    def observe(self, used: float, resets_at: float | None, now: float) -> None:
        """The vendor tells: `used` of the window, and when it begins anew."""
        over = self.resets_at is not None and (now >= self.resets_at or (resets_at or 0.0) > self.resets_at + 60.0)
        self._rooms.clear()
        if over or used < self.used - 0.05:
            self._parts.clear()
            self._pending.clear()
            for seen in self._people.values():
                seen.lately.clear()
            self.used = used
        elif used > self.used:
            moved, units = used - self.used, sum(self._pending.values())
            for name, own in self._pending.items():
                part = moved * own / units
                self._parts[name] = self._parts.get(name, 0.0) + part
                if (person := self._people.get(name)) is not None:
                    person.lately.append((now, part))
            if units:
                self._per_unit += (LEARNED if self._per_unit else 1.0) * (moved / units - self._per_unit)
            self._pending.clear()
            self.used = used
        self.resets_at = resets_at

    def remember(self, units: Mapping[str, float]) -> None:
        """What is used was so by these, who took so much since the window began: for a process that has not seen it."""
        total = sum(units.values())
        if total > 0:
            self._parts = {name: self.used * own / total for name, own in units.items()}
            self._rooms.clear()

    def asked(self, name: str, weight: float, now: float) -> None:
        """Somebody makes a request."""
        seen = self._people.get(name)
        if seen is None:
            self._people[name] = _Seen(now, now, weight, deque())
            self._rooms.clear()
            return
        seen.correct(now)
        if now - seen.last > ACTIVE_SECONDS:
            seen.since = now
            self._rooms.clear()
        seen.last, seen.weight = now, weight

    def metered(self, name: str, units: float, now: float) -> None:
        """A request of somebody's is over, and took so much (in whatever unit, always the same; more than nothing)."""
        self._pending[name] = self._pending.get(name, 0.0) + units
        if (seen := self._people.get(name)) is not None:
            seen.last = max(seen.last, now)

    def room(self, name: str, weight: float, now: float) -> float:
        """What somebody may use of the window now: 0 where the rest of it belongs to others.

        With 200 active people 100 µs, so that an answer is good for a second, or until somebody comes.
        """
        room, until = self._rooms.get(name, (0.0, 0.0))
        if until - ROOM_SECONDS <= now < until:
            return room
        room = self._room(name, weight, now)
        self._rooms[name] = room, now + ROOM_SECONDS
        return room

    def _room(self, name: str, weight: float, now: float) -> float:
        if self.resets_at is not None and now >= self.resets_at:
            return 1.0
        left = 1.0 - self.used - self._unseen()
        if left <= 0:
            return 0.0
        people = {name: Person(self.used_by(name), weight)}
        for other, seen in list(self._people.items()):
            seen.correct(now)
            if now - seen.last > ACTIVE_SECONDS:
                if now - seen.last > 2 * PACE_SECONDS:
                    del self._people[other]
                continue
            if other != name:
                people[other] = Person(self.used_by(other), seen.weight, self._wants(seen, now))
        return divide(left, people)[name]

    def used_by(self, name: str) -> float:
        """Somebody's part of what is used."""
        own = self._pending.get(name, 0.0)
        unseen = self._unseen() * own / sum(self._pending.values()) if own else 0.0
        return self._parts.get(name, 0.0) + unseen

    def _unseen(self) -> float:
        """What was used since the last step: less than the next one."""
        return min(STEP, self._per_unit * sum(self._pending.values()))

    def _wants(self, seen: _Seen, now: float) -> float:
        if now - seen.since < KNOWN_SECONDS or self.resets_at is None:
            return math.inf
        while seen.lately and seen.lately[0][0] <= now - PACE_SECONDS:
            seen.lately.popleft()
        pace = sum(part for _, part in seen.lately) / min(PACE_SECONDS, now - seen.since)
        return HEADROOM * pace * (self.resets_at - now)
