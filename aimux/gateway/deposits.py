"""What lies with one upstream account and can be reached through no other: files, batches, stored responses.

Their ids are learned from answers. Soft, like conversations: after a restart, or beyond the bounds, a request whose id
is unknown goes to any account, and a "not found" is tried with the others before it is relayed (`Action.MISSING`).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from aimux.gateway.epoch import NO_BODY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aimux.accounts import Account
    from aimux.gateway.call import Attempt, Call
    from aimux.gateway.models import Target
EACH = 2_000
"""Ids that are remembered of one user, the oldest goes first; about 400 bytes each."""
MOST = 50_000
LONGEST = 128
"""Characters of an id."""


class Deposit(NamedTuple):
    """Where something lies, and whose it is: a user's name ("": an anonymous caller's; None: nobody knows)."""

    account: Account
    owner: str | None


class Deposits:
    """By provider instance and id."""

    def __init__(self, most: int = MOST, each: int = EACH) -> None:
        self._most = most
        self._each = each
        self._places: OrderedDict[tuple[str, str], Deposit] = OrderedDict()
        self._owned: dict[str | None, OrderedDict[tuple[str, str], None]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def has(self, owner: str | None) -> bool:
        """Whether anything of this user's is known."""
        return owner in self._owned

    def find(self, instance: str, ids: Iterable[str]) -> Deposit | None:
        """Of the first id that is known."""
        for one in ids:
            if (place := self._places.get((instance, one))) is not None:
                return place
        return None

    def keep(self, account: Account, ids: Iterable[str], owner: str | None) -> None:
        """They lie with this account. Whose something is stays as it was first told."""
        for one in ids:
            if not 0 < len(one) <= LONGEST:
                continue
            key = (account.provider, one)
            known = self._places.pop(key, None)
            if known is not None and known.owner is not None:
                owner = known.owner
            if known is not None and known.owner != owner:
                self._disown(key, known.owner)
            self._places[key] = Deposit(account, owner)
            owned = self._owned.setdefault(owner, OrderedDict())
            owned[key] = None
            owned.move_to_end(key)
            if len(owned) > self._each:
                del self._places[owned.popitem(last=False)[0]]
            elif len(self._places) > self._most:
                oldest, place = self._places.popitem(last=False)
                self._disown(oldest, place.owner)

    def place_of(self, ids: tuple[str, ...], targets: tuple[Target, ...]) -> tuple[tuple[Target], str] | None:
        """The target and the account that have what a request refers to; None where nothing of it is known."""
        for target in targets:
            place = self.find(target.route.provider.instance, ids)
            if place is not None and target.route.accounts.accounts.get(place.account.name) is place.account:
                return (target,), place.account.name
        return None

    def learn(self, call: Call, attempt: Attempt, stored: tuple[str, ...]) -> None:
        """Ids from an answer. Whoever makes something owns it; what is told of it is of whoever owns what was asked."""
        owner: str | None = call.admitted.caller.name
        if call.head.method != "POST":
            known = self.find(attempt.account.provider, attempt.route.provider.refers_to(call.head, NO_BODY))
            owner = known.owner if known is not None else None
        self.keep(attempt.account, stored, owner)

    def _disown(self, key: tuple[str, str], owner: str | None) -> None:
        owned = self._owned[owner]
        del owned[key]
        if not owned:
            del self._owned[owner]
