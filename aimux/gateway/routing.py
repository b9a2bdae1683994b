"""Where a request may go: by what it asks for, and by what is remembered of earlier ones."""

from __future__ import annotations

from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from aimux.accounts import Selection
from aimux.gateway.allowed_targets import allowed_targets, refuse_addressed, refuse_named
from aimux.gateway.call import Call
from aimux.gateway.conversations import conversation_of
from aimux.gateway.epoch import NO_BODY
from aimux.gateway.forms import read_form
from aimux.gateway.large_bodies import is_large, skim
from aimux.gateway.models import Target
from aimux.gateway.named_models import NamedModels, models_in_target, own_models
from aimux.plugin.errors import ErrorKind, GatewayError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aimux.front.request import Request
    from aimux.gateway.caller import Caller
    from aimux.gateway.epoch import Admitted
    from aimux.gateway.handshakes import Handshake
    from aimux.gateway.large_bodies import Skimmed
    from aimux.gateway.limiting import Limiting
    from aimux.gateway.setup import Setup
    from aimux.gateway.vendor_storage import VendorStorage
    from aimux.metering.record import RequestRecord
    from aimux.plugin.body import Body
    from aimux.plugin.types import Headers


class Routing:
    """Looks into a request no further than necessary."""

    def __init__(self, limiting: Limiting, storage: VendorStorage) -> None:
        self.limiting = limiting
        self.storage = storage

    async def route(
        self,
        request: Request,
        setup: Setup,
        admitted: Admitted,
        record: RequestRecord,
        body: Body,
        upgrade: Handshake | None,
    ) -> tuple[Call, Skimmed | None]:
        """What to send, where to try it, and with which accounts; the skimmed body if it is large.

        Fills in the record's model and conversation. Raises GatewayError where the caller may not go there.
        """
        route, caller, head = admitted.route, admitted.caller, admitted.head
        provider, raw = route.provider, body.raw
        # If the model decides something, it has to be the one that the upstream reads.
        bound = caller.access is not None and caller.access.allowance is not None
        named = admitted.path_model
        decisive = not named and (bound or not setup.models.empty or self.limiting.limits.policy.by_model)
        names: NamedModels | None = None
        if bound and raw and not admitted.form and not caller.may_use(provider.instance, ""):
            names = NamedModels(partial(caller.may_use, provider.instance))
        shared = self.storage.is_shared(setup, caller)
        skimmed: Skimmed | None = None
        kept = caller.own is None and bool(self.storage.deposits)
        stores = kept and self.storage.wants_body(caller, None, shared=shared)
        others = partial(self.storage.deposits.is_of_another, caller.name) if stores and not shared else None
        if raw and admitted.form:
            skimmed = await request.turn.apart(read_form(body, head, provider if stores else None, others))
        elif is_large(body) or ((decisive or stores) and raw and not body.routed_model and not body.json()):
            skimmed = await self._skimmed(request, admitted, body, names, others, decisive=decisive, stores=stores)
        seen = body if skimmed is None else skimmed.summary
        if named:
            record.model = named
        elif raw and decisive:
            record.model = seen.routed_model if skimmed is None else skimmed.model
        elif raw:
            record.model = admitted.model_of(seen)
        by_model = upgrade is None and caller.own is None and not named
        if upgrade is not None and caller.own is None and setup.models.decide(provider.instance):
            # A socket names its models later, when it already has its account; over HTTP each request names its own,
            # and clients fall back to that.
            raise GatewayError(
                ErrorKind.UPGRADE_REQUIRED, "`models` of aimux decides by the model here: use HTTP without an upgrade."
            )
        targets = setup.models.targets(record.model, provider.instance) if by_model else (Target(route),)
        if bound:
            targets = allowed_targets(
                caller, targets, provider.instance, record.model if raw or named else None, upgrade
            )
            if raw:
                refuse_addressed(caller, provider.instance, head.target)
            if names is not None:
                if skimmed is None:
                    names.look(body)
                refuse_named(names)
        if raw and by_model and self.limiting.limits.policy.by_model:
            addressed = tuple(models_in_target(head.target))
            record.model = record.model or next(iter(addressed), "")
            inside = own_models(body) if skimmed is None else skimmed.models
            self.limiting.refuse_unclear(record, admitted, chain(inside, addressed))
        # One account needs no stickiness, which can cost parsing the body.
        choice = (raw or upgrade) and (len(targets) > 1 or len(targets[0].route.accounts.accounts) > 1)
        conversation = admitted.sender.conversation
        if choice and not conversation:
            conversation = conversation_of(provider, head, seen) or ""
        record.conversation = conversation
        selection = Selection(
            record.model,
            f"{caller.name}\0{conversation}" if choice and conversation else None,
            groups=caller.access.groups if caller.access is not None else None,
            pinned=_pinned(head.headers, caller) if "x-aimux-account" in head.headers else None,
        )
        references: tuple[str, ...] = ()
        if kept:
            shown = seen if self.storage.wants_body(caller, targets, shared=shared) else NO_BODY
            references = await self.storage.references(request.turn, admitted, shown, skimmed, targets, others)
            if references and not shared:
                self.storage.deposits.refuse_others(references, targets, caller.name)
            targets, selection = self.storage.place(references, targets, selection)
        call = Call(request.turn, admitted, body, record, targets, selection, upgrade, references, shared)
        return call, skimmed

    async def _skimmed(
        self,
        request: Request,
        admitted: Admitted,
        body: Body,
        names: NamedModels | None,
        others: Callable[[str], bool] | None,
        *,
        decisive: bool,
        stores: bool,
    ) -> Skimmed | None:
        """None: nobody needs more of it than the model, and it begins with that."""
        sticky = len(admitted.route.accounts.accounts) > 1 and not admitted.sender.conversation
        if not (decisive or stores or sticky or names) and body.leading_model:
            return None
        work = skim(body, admitted.head, admitted.route.provider if stores else None, names, others)
        return await request.turn.apart(work)


def _pinned(headers: Headers, caller: Caller) -> str:
    if caller.user is None or not caller.user.pin_accounts:
        raise GatewayError(
            ErrorKind.FORBIDDEN, "You may not choose the account: leave `x-aimux-account` out.", retry=False
        )
    return headers["x-aimux-account"]
