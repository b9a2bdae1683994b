"""What users keep with the vendors (files, batches, stored responses): whose it is, and which account it lies with.

Ids are learned from answers, and kept in the database too, so that a restart and other nodes know them
(`aimux/gateway/deposit_rows.py`). An unknown id was made with the same account outside aimux, or was forgotten: it is
nobody's, and whoever can name it may use it, because ids can't be guessed and no list shows them. A request with such
an id goes to any account, and a "not found" is tried with the others before it is relayed (`Action.MISSING`).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from aimux.gateway.deferred_usage import claim, due, is_open
from aimux.gateway.epoch import NO_BODY
from aimux.plugin.errors import ErrorKind, GatewayError
from aimux.plugin.stored import EVERYBODYS, LONGEST_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from aimux.gateway.call import Attempt, Call
    from aimux.gateway.deferred_usage import Claim
    from aimux.gateway.models import Target
    from aimux.plugin.meters import Meter
    from aimux.plugin.types import Over

EACH = 2_000
"""Ids remembered for one user; the oldest is dropped first. They take about 400 bytes each."""
MOST = 50_000

Key = tuple[str, str]
"""A provider instance, and an id there."""


class Deposit(NamedTuple):
    """Where something lies, and whose it is: a user's name ("": an anonymous caller's; None: nobody knows).

    `due`: under what it counts what it takes, see `deferred_usage` ("": it takes nothing, or nobody knows)."""

    account: str
    owner: str | None
    due: str = ""

    def belongs_to_another(self, user: str) -> bool:
        """What was stored while there were no users is everybody's."""
        return bool(self.owner) and self.owner != user


class Deposits:
    """By provider instance and id."""

    def __init__(self, most: int = MOST, each: int = EACH) -> None:
        self.fresh: dict[Key, tuple[Deposit, bool]] = {}
        """What was learned since somebody took it from here to write it down; True: it lasts."""
        self.claims: list[Claim] = []
        """What was reported to be over since then; whoever changes its due may record it."""
        self.on_claim: Callable[[], None] = lambda: None
        self._most = most
        self._each = each
        self._places: OrderedDict[Key, Deposit] = OrderedDict()
        self._owned: dict[str | None, OrderedDict[Key, None]] = {}
        self._instances: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._places)

    def has(self, owner: str | None) -> bool:
        """Whether anything of this user's is known."""
        return owner in self._owned

    def any_with(self, targets: Iterable[Target]) -> bool:
        """Whether anything is known that lies with one of these."""
        return any(self._instances[target.route.provider.instance] for target in targets)

    def is_of_another(self, user: str, one: str) -> bool:
        """Whether an id is known as another user's, with any provider."""
        places = (self._places.get((instance, one)) for instance in self._instances)
        return any(place is not None and place.belongs_to_another(user) for place in places)

    def owned(self, owner: str, instance: str) -> dict[str, set[str]]:
        """The ids of a user's things, by account."""
        found: dict[str, set[str]] = {}
        for key in self._owned.get(owner, ()):
            if key[0] == instance:
                found.setdefault(self._places[key].account, set()).add(key[1])
        return found

    def find(self, instance: str, ids: Iterable[str]) -> Deposit | None:
        """The deposit of the first id that is known."""
        for one in ids:
            if (place := self._places.get((instance, one))) is not None:
                return place
        return None

    def keep(
        self,
        instance: str,
        account: str,
        ids: Iterable[str],
        owner: str | None,
        *,
        lasts: bool | None = True,
        due: str | None = None,
    ) -> None:
        """Note that this account has them. An owner, once known, stays. `lasts` None: that is written down already;
        False: it is short-lived, like a response. `due` None: the due stays as well."""
        for one in ids:
            if not 0 < len(one) <= LONGEST_ID:
                continue
            key, of_all = (instance, one), owner
            known = self._places.pop(key, None)
            if known is not None and known.owner is not None:
                of_all = known.owner
            if known is None:
                self._instances[instance] += 1
            elif known.owner != of_all:
                self._disown(key, known.owner)
            left = due if due is not None else known.due if known is not None else ""
            place = self._places[key] = Deposit(account, of_all, left)
            if place != known and of_all is not None and lasts is not None:
                self.fresh[key] = place, lasts
                if len(self.fresh) > self._most:
                    del self.fresh[next(iter(self.fresh))]
            owned = self._owned.setdefault(of_all, OrderedDict())
            owned[key] = None
            owned.move_to_end(key)
            if len(owned) > self._each:
                self._forget(owned.popitem(last=False)[0])
            elif len(self._places) > self._most:
                oldest = next(iter(self._places))
                self._disown(oldest, self._places[oldest].owner)
                self._forget(oldest)

    def rename(self, instance: str, account: str, new: str) -> None:
        """An account has another name now."""
        for key, place in self._places.items():
            if key[0] == instance and place.account == account:
                self._places[key] = place._replace(account=new)
        for key, (place, lasts) in self.fresh.items():
            if key[0] == instance and place.account == account:
                self.fresh[key] = place._replace(account=new), lasts

    def place_of(self, ids: tuple[str, ...], targets: tuple[Target, ...]) -> tuple[tuple[Target], str] | None:
        """The target and the account that have what a request refers to; None if nothing is known about it."""
        for target in targets:
            place = self.find(target.route.provider.instance, ids)
            if place is not None and place.account in target.route.accounts.accounts:
                return (target,), place.account
        return None

    def unknown(self, ids: Iterable[str], targets: Iterable[Target]) -> list[Key]:
        """The ids that this node knows nothing about."""
        instances = {target.route.provider.instance for target in targets}
        return [(instance, one) for one in ids for instance in instances if (instance, one) not in self._places]

    def refuse_others(self, ids: Collection[str], targets: Iterable[Target], user: str) -> None:
        """Raises GatewayError (404) if one of these is another user's, or 403 if they are everybody's."""
        if EVERYBODYS in ids:
            message = "This would go through what everybody has stored here: name what is yours, or send it along."
            raise GatewayError(ErrorKind.FORBIDDEN, message, retry=False)
        instances = {target.route.provider.instance for target in targets}
        for one in ids:
            for instance in instances:
                place = self._places.get((instance, one))
                if place is not None and place.belongs_to_another(user):
                    raise GatewayError(
                        ErrorKind.NOT_FOUND, f"{one} was not found among what you have stored here.", retry=False
                    )

    def learn(self, call: Call, attempt: Attempt, meter: Meter, *, whole: bool = True) -> None:
        """Ids from an answer. Whoever makes something owns it, and owns what it leads to. What a request itself names
        existed before, and does not become the caller's by being named.

        `whole` False: the answer broke off."""
        instance, caller = attempt.account.provider, call.admitted.caller.name
        named = call.references or attempt.route.provider.refers_to(call.head, NO_BODY)
        made = [one for one in meter.stored if one not in named]
        owner: str | None = caller
        if call.head.makes_nothing and call.upgrade is None:
            known = self.find(instance, attempt.route.provider.refers_to(call.head, NO_BODY))
            owner = known.owner if known is not None else None
        self.keep(instance, attempt.account.name, made, owner, lasts=not meter.consumes)
        self.keep(instance, attempt.account.name, [one for one in meter.stored if one in named], None)
        if meter.begun in made and owner is not None and not call.head.makes_nothing:
            record = call.record
            told = (usage.model for over in meter.over if over.id == meter.begun for usage in over.usage)
            left = due(record.sender, record.conversation, next(told, ""))
            self.keep(instance, attempt.account.name, [meter.begun], owner, lasts=not meter.consumes, due=left)
        if meter.over:
            self.count(instance, meter.over, call.record.path, whole=whole)

    def count(self, instance: str, told: Iterable[Over], path: str, *, whole: bool = True) -> None:
        """Have what is over recorded, as far as it is due. `path`: the one whose answer reported it."""
        for over in told:
            place = self._places.get((instance, over.id))
            if place is None or place.owner is None or not is_open(place.due):
                continue
            if not whole:
                over = over._replace(whole=False)
            made = claim(instance, place.account, place.owner, over, place.due, path)
            if made is not None and len(self.claims) < self._most:
                self.keep(instance, place.account, [over.id], place.owner, lasts=None, due=made.new)
                self.claims.append(made)
                self.on_claim()

    def _disown(self, key: Key, owner: str | None) -> None:
        owned = self._owned[owner]
        del owned[key]
        if not owned:
            del self._owned[owner]

    def _forget(self, key: Key) -> None:
        del self._places[key]
        self._instances[key[0]] -= 1
