"""Which account serves a request, as pure functions. `aimux.accounts.index` gives the same answers without a scan."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aimux.accounts.account import Account
    from aimux.accounts.quota import Quota
    from aimux.plugin.settings import AccountSettings

Strategy = Literal["least_used", "round_robin", "priority"]
Rank = tuple[float, ...]
NO_GROUPS: frozenset[str] = frozenset()
NO_NAMES: frozenset[str] = frozenset()

STEPS = 20
"""Accounts within a step (5 %) of each other count as equally used, so that requests in flight decide between them:
what these use shows only in their answers, so otherwise a whole burst would land on one account."""


@dataclass(slots=True, init=False)
class Selection:
    """What a request needs. Never changed, only replaced.

    `groups` None: any account that is reserved for nobody; a set: accounts of one of these groups, and those without
    groups. `conversation` names the user too, or one user could move another's conversations. `exclude`: names already
    tried.
    """

    model: str
    conversation: str | None
    exclude: frozenset[str]
    groups: frozenset[str] | None
    pinned: str | None

    # A dataclass's `__init__` would be interpreted even in a compiled module: 2,000 instructions more.
    def __init__(
        self,
        model: str = "",
        conversation: str | None = None,
        exclude: frozenset[str] = NO_NAMES,
        groups: frozenset[str] | None = None,
        pinned: str | None = None,
    ) -> None:
        self.model = model
        self.conversation = conversation
        self.exclude = exclude
        self.groups = groups
        self.pinned = pinned


class Slot:
    """Accounts that draw on one quota with the same settings: one candidate, however many logins it has.

    `served` counts how often it was chosen, divided by its weight: the smallest is next.
    """

    __slots__ = (
        "_held_until",
        "_regroup",
        "able",
        "accounts",
        "dirty",
        "in_flight",
        "index",
        "members",
        "on_dirty",
        "quota",
        "served",
        "settings",
        "wake",
    )

    def __init__(self, index: int, quota: Quota, settings: AccountSettings, on_dirty: Callable[[Slot], None]) -> None:
        self.index = index
        self.quota = quota
        self.settings = settings
        self.on_dirty = on_dirty
        self.accounts: list[Account] = []
        self.members: list[Account] = []
        """Its accounts that are neither parked, disabled nor on hold; the next to serve is first."""
        self.in_flight = 0
        self.served = 0.0
        self.wake = math.inf
        """When time alone changes something here."""
        self.able = False
        self.dirty = False
        self._regroup = True
        self._held_until = math.inf

    def touch(self) -> None:
        """Something changed: work its rank out again before the next choice."""
        if not self.dirty:
            self.dirty = True
            self.on_dirty(self)

    def load(self, difference: int) -> None:
        """`difference` more requests are under way."""
        self.in_flight += difference
        if not self.dirty:
            self.touch()

    def regroup(self) -> None:
        """One of its accounts changed."""
        self._regroup = True
        self.touch()

    def settle(self, now: float) -> None:
        """Update everything that depends on time to `now`."""
        if now >= self.quota.changes_at:
            self.quota.settle(now)
        if self._regroup or now >= self._held_until:
            self._regroup = False
            self.members = [account for account in self.accounts if account.ready_at() <= now]
            holds = [account.ready_at() for account in self.accounts]
            self._held_until = min((hold for hold in holds if hold > now), default=math.inf)
        self.wake = min(self.quota.changes_at, self._held_until)
        self.able = bool(self.members) and self.quota.free_at("") <= now

    def offers(self, exclude: frozenset[str]) -> bool:
        """Whether a member is left that was not tried yet."""
        for member in self.members:  # noqa: SIM110 - `any` would cost a generator for what is mostly one member
            if member.name not in exclude:
                return True
        return False

    def next(self, exclude: frozenset[str]) -> Account:
        """The member whose turn it is. There has to be one."""
        members = self.members
        for position, member in enumerate(members):
            if member.name not in exclude:
                if len(members) > 1:
                    members.append(members.pop(position))
                return member
        raise LookupError("nobody is left")


def rank(strategy: Strategy, slot: Slot) -> Rank:
    """The smallest is chosen. Whatever the strategy, a lower `priority` comes first; it then decides among equals.

    `least_used`: the most room in the tightest window (a weight of 2 may be used twice as far), then the fewest
    requests in flight per weight, then turns. `round_robin`: turns by weight. `priority`: fill the first, by weight and
    name, until it can't serve.
    """
    settings = slot.settings
    match strategy:
        case "least_used":
            used = int(slot.quota.used / settings.weight * STEPS)
            return (settings.priority, used, slot.in_flight / settings.weight, slot.served)
        case "round_robin":
            return (settings.priority, slot.served)
        case "priority":
            return (settings.priority, -settings.weight)


def admits(groups: frozenset[str] | None, settings: AccountSettings, reserved: frozenset[str] = NO_GROUPS) -> bool:
    """Whether a user of these `groups` may use the account. One in `reserved` groups is for their members only."""
    if not settings.groups:
        return True
    if reserved and not reserved.isdisjoint(settings.groups):
        return groups is not None and not groups.isdisjoint(reserved.intersection(settings.groups))
    return groups is None or not groups.isdisjoint(settings.groups)


def choose(
    slots: Iterable[Slot],
    selection: Selection,
    strategy: Strategy,
    now: float,
    reserved: frozenset[str] = NO_GROUPS,
) -> Slot | None:
    """The decision itself, over settled slots; the pool looks at conversations and pins before."""
    able = (
        slot
        for slot in slots
        if slot.offers(selection.exclude)
        and slot.quota.free_at(selection.model) <= now
        and admits(selection.groups, slot.settings, reserved)
    )
    return min(able, key=lambda slot: (rank(strategy, slot), slot.index), default=None)
