"""Gives the answer of `selection.choose` without looking at each account.

A choice among 1,000 accounts costs as much as one among ten: there is a heap for each kind of request, in which only
the slots that changed since the last choice are ranked again.
"""

from __future__ import annotations

import heapq
import math
from functools import partial
from typing import TYPE_CHECKING

from aimux.accounts.selection import NO_GROUPS, Slot, admits, rank

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aimux.accounts.account import Account
    from aimux.accounts.quota import Quota
    from aimux.accounts.selection import Rank, Selection, Strategy
    from aimux.plugin.settings import AccountSettings

Kind = tuple[frozenset[str] | None, str]
"""The groups of the user, and the model where some quota is used up for that model alone."""

MAX_RANKINGS = 64
"""Kinds of requests that are kept; beyond them the oldest is dropped, and built again when needed."""


class Ranking:
    """The slots that may serve one kind of request, best first, kept up as they change.

    A slot's outdated entries stay in the heap until they surface: pushing costs half a microsecond, removing from the
    middle would cost a scan. When most of the heap is outdated it is made anew.
    """

    def __init__(self, strategy: Strategy, kind: Kind, reserved: frozenset[str]) -> None:
        self._strategy = strategy
        self._groups, self._model = kind
        self._reserved = reserved
        self._heap: list[tuple[Rank, int, int, Slot]] = []
        self._current: dict[int, tuple[Rank, int, int, Slot]] = {}
        self._version = 0

    def update(self, slot: Slot, now: float) -> None:
        """Note a slot that changed and was settled."""
        current = self._current
        if (
            not slot.able
            or slot.quota.free_at(self._model) > now
            or not admits(self._groups, slot.settings, self._reserved)
        ):
            current.pop(slot.index, None)
            return
        position = rank(self._strategy, slot)
        known = current.get(slot.index)
        if known is None or known[0] != position:
            self._version += 1  # so that two entries of one slot never compare the slots themselves
            entry = current[slot.index] = (position, slot.index, self._version, slot)
            heapq.heappush(self._heap, entry)
            if len(self._heap) > 4 * len(current) + 64:
                self._heap = list(current.values())
                heapq.heapify(self._heap)

    def first(self, exclude: frozenset[str]) -> Slot | None:
        """The best slot that has a member left to offer."""
        heap, current = self._heap, self._current
        passed = []
        found = None
        while heap:
            entry = heap[0]
            if current.get(entry[1]) is not entry:
                heapq.heappop(heap)
            elif exclude and not entry[3].offers(exclude):
                passed.append(heapq.heappop(heap))
            else:
                found = entry[3]
                break
        for entry in passed:
            heapq.heappush(heap, entry)
        return found


class Index:
    """All slots of a pool and the rankings over them. `arrange` first, then `settle` before anything is asked."""

    def __init__(self) -> None:
        self._strategy: Strategy = "least_used"
        self._slots: list[Slot] = []
        self._rankings: dict[Kind, Ranking] = {}
        self._dirty: list[Slot] = []
        self._wakes: list[tuple[float, int]] = []
        self._limited: dict[str, float] = {}
        """Models that some quota is used up for, and until when at the latest."""
        self._named: frozenset[str] = NO_GROUPS
        """Groups that have accounts: a user's other groups would only split one kind of request into several."""
        self._reserved: frozenset[str] = NO_GROUPS
        self._turns: dict[int, float] = {}
        """By priority: how far the turns have come. A slot that comes back joins there, and gets no more than its
        share."""

    def arrange(
        self,
        accounts: Iterable[Account],
        strategy: Strategy,
        on_change: Callable[[], None],
        reserved: frozenset[str] = NO_GROUPS,
    ) -> None:
        """Group the accounts into slots anew, and listen to them. `on_change` is called with every change as well."""
        served = {(slot.quota, slot.settings): slot.served for slot in self._slots}
        slots: dict[tuple[Quota, AccountSettings], Slot] = {}
        self._strategy = strategy
        self._dirty, self._wakes = [], []
        self._rankings.clear()
        for account in sorted(accounts, key=lambda account: account.name):
            key = (account.quota, account.settings)
            slot = slots.get(key)
            if slot is None:
                slot = slots[key] = Slot(len(slots), *key, self._dirty.append)
                slot.served = served.get(key, 0.0)
                account.quota.listeners = []
            slot.accounts.append(account)
            slot.in_flight += account.in_flight
            account.on_load = slot.load
            account.on_change = _both(slot.regroup, on_change)
        for (quota, _), slot in slots.items():
            quota.listeners += [slot.touch, partial(self._note_limits, quota), on_change]
            self._note_limits(quota)
            slot.touch()
        self._slots = list(slots.values())
        self._named = NO_GROUPS.union(*(slot.settings.groups for slot in self._slots))
        self._reserved = reserved

    def settle(self, now: float) -> None:
        """Rank again whatever changed, including what changed because time went by."""
        wakes, slots = self._wakes, self._slots
        while wakes and wakes[0][0] <= now:
            slots[heapq.heappop(wakes)[1]].touch()
        if not self._dirty:
            return
        for slot in self._dirty:
            slot.dirty = False
            before, was_able = slot.wake, slot.able
            slot.settle(now)
            if slot.able and not was_able:
                slot.served = max(slot.served, self._turns.get(slot.settings.priority, 0.0))
            if slot.wake != before and slot.wake < math.inf:
                heapq.heappush(wakes, (slot.wake, slot.index))
            for ranking in self._rankings.values():
                ranking.update(slot, now)
        self._dirty.clear()
        if len(wakes) > 4 * len(slots) + 64:
            wakes[:] = [(slot.wake, slot.index) for slot in slots if slot.wake < math.inf]
            heapq.heapify(wakes)

    def choose(self, selection: Selection, now: float) -> Account | None:
        """The account whose turn it is. Only right after `settle`."""
        limited = self._limited and self._limited.get(selection.model, 0.0) > now
        groups = selection.groups & self._named if selection.groups is not None else None
        kind = (groups, selection.model if limited else "")
        ranking = self._rankings.get(kind) or self._rank(kind, now)
        slot = ranking.first(selection.exclude)
        if slot is None:
            return None
        self._turns[slot.settings.priority] = slot.served
        slot.served += 1 / slot.settings.weight
        slot.touch()
        return slot.next(selection.exclude)

    def _rank(self, kind: Kind, now: float) -> Ranking:
        for model in [model for model, until in self._limited.items() if until <= now]:
            del self._limited[model]
        for old in [old for old in self._rankings if old[1] and old[1] not in self._limited]:
            del self._rankings[old]
        while len(self._rankings) >= MAX_RANKINGS:
            del self._rankings[next(iter(self._rankings))]
        ranking = self._rankings[kind] = Ranking(self._strategy, kind, self._reserved)
        for slot in self._slots:
            ranking.update(slot, now)
        return ranking

    def _note_limits(self, quota: Quota) -> None:
        for model, cooldown in quota.cooldowns.items():
            if model:
                self._limited[model] = max(self._limited.get(model, 0.0), cooldown.until)


def _both(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    def call() -> None:
        first()
        second()

    return call
