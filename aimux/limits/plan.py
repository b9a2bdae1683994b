"""What if: the ledger's requests once more, in virtual time, over accounts that are not there, or chosen otherwise.

It is the choice itself that runs (accounts.selection) and the sharing itself (limits.fair); what is made up is the
vendor: a window holds so much, begins with the first request and ends after its length. What a request takes counts
when it is over, as it does in reality.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from aimux.accounts.account import Account
from aimux.accounts.conversations import Conversations, Stay
from aimux.accounts.selection import Selection, Slot, choose
from aimux.limits.fair_share import FairShare
from aimux.plugin.types import LimitWindow

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from aimux.accounts.selection import Strategy
    from aimux.plugin.settings import AccountSettings

PATIENCE = 600.0
"""Who has to wait for longer is refused."""
FULL = 1 - 1e-9
"""Ten tenths are a little less than one."""
HOUR = 3600


class Asked(NamedTuple):
    """A request of the ledger. `at` in unix seconds; `units` is what a window counts, costs for instance."""

    at: float
    user: str
    conversation: str
    model: str
    units: float
    seconds: float


class Window(NamedTuple):
    """A window of every subscription: its length in seconds, and what it holds."""

    name: str
    seconds: float
    units: float


@dataclass(slots=True)
class Outcome:
    """Of an account."""

    name: str
    requests: int = 0
    cooled: int = 0
    """How often one of its windows was full."""
    busy_hours: set[int] = field(default_factory=set)
    fullest: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Plan:
    """What would have happened."""

    requests: int = 0
    waited: int = 0
    """For at most PATIENCE; the others were refused."""
    waited_seconds: float = 0.0
    refused: int = 0
    not_their_share: int = 0
    """Of those that waited or were refused: the rest of the windows belonged to others."""
    hours: int = 0
    accounts: list[Outcome] = field(default_factory=list)


class _Vendor:
    """One account's windows, as its vendor would count them."""

    def __init__(self, slot: Slot, windows: Sequence[Window], outcome: Outcome) -> None:
        self.slot = slot
        self.outcome = outcome
        self._windows = windows
        self._used = dict.fromkeys((window.name for window in windows), 0.0)
        self._resets = dict.fromkeys((window.name for window in windows), 0.0)
        slot.quota.observe([LimitWindow(window.name, 0.0, None, "allowed") for window in windows], 0.0)

    def took(self, units: float, now: float) -> None:
        """A request is over."""
        told = []
        for window in self._windows:
            if now >= self._resets[window.name]:
                self._used[window.name], self._resets[window.name] = 0.0, now + window.seconds
            used = self._used[window.name] = self._used[window.name] + units / window.units
            self.outcome.fullest[window.name] = max(used, self.outcome.fullest.get(window.name, 0.0))
            status = "rejected" if used >= FULL else "allowed"
            told.append(LimitWindow(window.name, min(1.0, used), self._resets[window.name], status))
        quota = self.slot.quota
        quota.observe(tuple(told), now)
        if full := [one for one in told if one.status == "rejected"]:
            if not quota.cooling(now):
                self.outcome.cooled += 1
            quota.cool(now, until=max(one.resets_at or now for one in full), reason="full")

    @property
    def free_at(self) -> float:
        return self.slot.quota.free_at("")


def replay(
    requests: Iterable[Asked],
    accounts: Mapping[str, AccountSettings],
    windows: Sequence[Window],
    *,
    strategy: Strategy,
    fair_share: bool = False,
    weights: Mapping[str, float] = MappingProxyType({}),
    keys: Container[str] = (),
) -> Plan:
    """`requests` in the order of time. `weights`: of the fair shares of users for whom it is not 1. `keys`: accounts
    that are API keys, which have no windows."""
    plan, fair = Plan(), FairShare(on=fair_share)
    vendors: dict[str, _Vendor] = {}
    dirty: list[Slot] = []
    for number, (name, settings) in enumerate(accounts.items()):
        account = Account(name, "plan")
        slot = Slot(number, account.quota, settings, dirty.append)
        account.quota.listeners.append(slot.touch)
        slot.accounts.append(account)
        plan.accounts.append(Outcome(name))
        vendors[name] = _Vendor(slot, () if name in keys else windows, plan.accounts[-1])
    talks = Conversations()
    running: list[tuple[float, int, str, str, float]] = []
    waiting: list[tuple[float, int, Asked, bool]] = []
    """When each who waits looks again, and whether the rest was kept for others so far. Whoever comes in between is
    served, or waits, in between: a window that is full is full for both."""
    first, last = None, 0.0
    coming = iter(enumerate(requests))
    following = next(coming, None)
    while waiting or following is not None:
        if following is not None and (not waiting or following[1].at < waiting[0][0]):
            number, asked = following
            now, shared = asked.at, False
            first, last = now if first is None else first, max(last, now)
            plan.requests += 1
            following = next(coming, None)
        else:
            now, number, asked, shared = heapq.heappop(waiting)
        _end(running, now, vendors, fair)
        vendor, others = _choice(asked, now, vendors, talks, fair if fair_share else None, strategy, weights)
        shared = shared or others
        if vendor is None:
            # Something changes when a request ends, or a window; until then everybody waits.
            changes = [one.free_at for one in vendors.values() if one.free_at > now] + [end for end, *_ in running[:1]]
            again = min(changes, default=math.inf)
            again = max(now + 1.0, again) if others else again
            if again <= asked.at + PATIENCE:
                heapq.heappush(waiting, (again, number, asked, shared))
                continue
        if vendor is None or now > asked.at:
            plan.not_their_share += shared
        if vendor is None:
            plan.refused += 1
            continue
        if now > asked.at:
            plan.waited += 1
            plan.waited_seconds += now - asked.at
        vendor.slot.load(1)
        vendor.slot.served += 1 / vendor.slot.settings.weight
        vendor.outcome.requests += 1
        vendor.outcome.busy_hours.add(int(now) // HOUR)
        last = max(last, now)
        heapq.heappush(running, (now + asked.seconds, number, vendor.outcome.name, asked.user, asked.units))
    _end(running, math.inf, vendors, fair)  # what the last ones take counts, too
    if first is not None:
        plan.hours = int(last) // HOUR - int(first) // HOUR + 1
    return plan


def _end(
    running: list[tuple[float, int, str, str, float]], now: float, vendors: Mapping[str, _Vendor], fair: FairShare
) -> None:
    while running and running[0][0] <= now:
        end, _, name, user, units = heapq.heappop(running)
        vendor = vendors[name]
        vendor.slot.load(-1)
        if fair.on and units:  # before the window moves: whose use has moved it is known by then
            fair.metered(vendor.slot.quota, user, units, end)
        vendor.took(units, end)


def _choice(
    asked: Asked,
    now: float,
    vendors: Mapping[str, _Vendor],
    talks: Conversations,
    fair: FairShare | None,
    strategy: Strategy,
    weights: Mapping[str, float],
) -> tuple[_Vendor | None, bool]:
    """Who serves it now, and whether somebody could who keeps the rest for others."""
    weight, allowed, others = weights.get(asked.user, 1.0), [], False
    for vendor in vendors.values():
        vendor.slot.settle(now)
        quota = vendor.slot.quota
        if fair is not None and vendor.slot.able:
            fair.asked(quota, asked.user, weight, now)
            if any(share.room <= 0 for share in fair.shares(quota, asked.user, weight, now)):
                others = True
                continue
        allowed.append(vendor.slot)
    talk = f"{asked.user}\0{asked.conversation}"
    stay = talks.get(talk, now) if asked.conversation else None
    if stay is not None and (home := vendors.get(stay.home)) is not None and home.slot in allowed and home.slot.able:
        talks.put(talk, stay._replace(used=now))
        return home, others
    slot = choose(allowed, Selection(asked.model), strategy, now)
    if slot is None:
        return None, others
    name = slot.accounts[0].name
    if asked.conversation:
        talks.put(talk, Stay(name, now, served=True))
    return vendors[name], others
