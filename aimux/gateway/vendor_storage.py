"""How what users keep with the vendors affects a request: where it has to go, and whether it may."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from aimux.gateway.large_bodies import references_of
from aimux.gateway.own_lists import OwnLists
from aimux.plugin.body import Body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from aimux.accounts import Selection
    from aimux.front.answer import Answer
    from aimux.gateway.call import Attempt, Call
    from aimux.gateway.caller import Caller
    from aimux.gateway.cors import Cors
    from aimux.gateway.deposits import Deposits, Key
    from aimux.gateway.epoch import Admitted
    from aimux.gateway.large_bodies import Skimmed
    from aimux.gateway.models import Target
    from aimux.gateway.setup import Setup
    from aimux.http.turn import Turn


class VendorStorage:
    """Of one gateway. `look_up` has `deposits` hold what is written down of some ids."""

    def __init__(self, deposits: Deposits, look_up: Callable[[Sequence[Key]], Awaitable[None]] | None = None) -> None:
        self.deposits = deposits
        self._written = look_up

    def is_shared(self, setup: Setup, caller: Caller) -> bool:
        """Whether this caller may use what others have stored: by the configuration, or because there are no users.
        With a login of one's own it is the vendor's affair."""
        return setup.shared_storage or caller.access is None or caller.own is not None

    def wants_body(self, caller: Caller, targets: Iterable[Target] | None, *, shared: bool) -> bool:
        """Whether a body may name something that matters. `targets` None: wherever it goes.

        Searching 50 kB, for members and for others' ids, takes 0.2 to 0.5 ms, so it is done only if somebody has stored
        something with this provider, which neither vendor's CLI does.
        """
        if shared:
            return self.deposits.has(caller.name)
        return len(self.deposits) > 0 if targets is None else self.deposits.any_with(targets)

    async def references(
        self,
        turn: Turn[Any],
        admitted: Admitted,
        body: Body,
        skimmed: Skimmed | None,
        targets: tuple[Target, ...],
        others: Callable[[str], bool] | None,
    ) -> tuple[str, ...]:
        """The ids that the request names, if anything is known about what they may mean."""
        if skimmed is not None:
            found = skimmed.references
        else:
            found = references_of(admitted.route.provider, admitted.head, body, others)
        if found:
            await self._look_up(turn, self.deposits.unknown(found, targets))
        return found

    def place(
        self, references: tuple[str, ...], targets: tuple[Target, ...], selection: Selection
    ) -> tuple[tuple[Target, ...], Selection]:
        """Where the request has to go for what it names."""
        place = self.deposits.place_of(references, targets)
        if place is None:
            return targets, selection
        if selection.pinned is not None:
            return place[0], selection
        pinned, (target,) = replace(selection, pinned=place[1]), place[0]
        if self._only_replayed(references, target) and target.route.accounts.retry_after(pinned, time.time()) != 0:
            return targets, selection
        return place[0], pinned

    def _only_replayed(self, references: tuple[str, ...], target: Target) -> bool:
        """Whether all that is known of what a request names is sent again where it is missing."""
        provider = target.route.provider
        return bool(provider.replayed_ids) and all(
            one.startswith(provider.replayed_ids) or self.deposits.find(provider.instance, [one]) is None
            for one in references
        )

    def refuse_others(self, call: Call, message: bytes) -> list[Key]:
        """Raises GatewayError (404) if a socket's message names something of another user's, as far as memory knows.
        Returns what it knows nothing about, for `look_up`."""
        if not self.deposits.any_with(call.targets):
            return []
        user = call.admitted.caller.name
        others = partial(self.deposits.is_of_another, user)
        named = references_of(call.admitted.route.provider, call.head, Body(message), others)
        self.deposits.refuse_others(named, call.targets, user)
        return self.deposits.unknown(named, call.targets) if self._written is not None else []

    async def look_up(self, keys: Sequence[Key]) -> None:
        """Have memory hold what is written down of these."""
        if self._written is not None:
            await self._written(keys)

    def lists(self, admitted: Admitted) -> bool:
        """Whether a GET asks for a list that each user has one of."""
        return admitted.route.provider.lists(admitted.head) != "nothing"

    async def own_list(self, call: Call, cors: Cors, send: Callable[[Call], Awaitable[Attempt]]) -> Answer | Attempt:
        """`OwnLists.gather`."""
        return await OwnLists(self.deposits, send, partial(self._look_up, call.turn)).gather(call, cors)

    async def _look_up(self, turn: Turn[Any], keys: Sequence[Key]) -> None:
        if keys:
            await turn.apart(self.look_up(keys))
