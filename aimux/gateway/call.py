"""What the attempt loop works on: one client's request, and one upstream's answer to it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from aimux.metering.record import Step
from aimux.plugin.types import RELAY, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aimux.accounts import Account, Selection
    from aimux.gateway.eligibility import Eligibility
    from aimux.gateway.epoch import Admitted
    from aimux.gateway.handshakes import Handshake
    from aimux.gateway.models import Target
    from aimux.gateway.route import Route
    from aimux.http.head import ResponseHead
    from aimux.http.turn import Turn
    from aimux.metering.record import RequestRecord
    from aimux.plugin.body import Body
    from aimux.plugin.types import Credential
    from aimux.relay.exchange import Exchange


MAX_ID = 128
"""Characters of a vendor's id that are kept."""


class Call:
    """A client's request as the attempts need it. `targets` are tried in order."""

    __slots__ = (
        "admitted",
        "body",
        "eligibility",
        "head",
        "record",
        "references",
        "selection",
        "shared",
        "targets",
        "turn",
        "upgrade",
    )

    def __init__(
        self,
        turn: Turn[Any],
        admitted: Admitted,
        body: Body,
        record: RequestRecord,
        targets: Sequence[Target],
        selection: Selection,
        upgrade: Handshake | None = None,
        references: tuple[str, ...] = (),
        shared: bool = True,
    ) -> None:
        """`turn` serves it. `references`: what it names of what is kept upstream. `shared`: it may name what others
        have stored."""
        self.turn = turn
        self.admitted = admitted
        self.head = admitted.head
        self.body = body
        self.record = record
        self.targets = targets
        self.selection = selection
        self.upgrade = upgrade
        self.eligibility: Eligibility | None = None
        """Which accounts may serve it; None: each."""
        self.references = references
        self.shared = shared

    def again(self, admitted: Admitted, selection: Selection) -> Call:
        """The same call with another head, and another selection of accounts."""
        call = Call(
            self.turn,
            admitted,
            self.body,
            self.record,
            self.targets,
            selection,
            self.upgrade,
            self.references,
            self.shared,
        )
        call.eligibility = self.eligibility
        return call

    def note(self, account: str, status: int, action: str, reason: str) -> None:
        """Remember a step for `aimux why`."""
        record = self.record
        record.steps.append(Step(record.provider, account, status, action, reason, time.time() - record.time))

    def note_answer(self, attempt: Attempt) -> None:
        """Remember an upstream's answer."""
        record, head, verdict = self.record, attempt.head, attempt.verdict
        model = "" if attempt.model == record.model else attempt.model
        headers = head.headers
        vendors = headers.get("request-id") or headers.get("x-request-id") or ""
        seconds = time.time() - record.time
        record.steps.append(
            Step(
                record.provider,
                attempt.account.name,
                head.status,
                verdict.action,
                verdict.reason,
                seconds,
                model,
                vendors[:MAX_ID],
            )
        )


class Attempt:
    """One answer of an upstream, not yet sent to the client. Its account is in flight until `end`."""

    __slots__ = (
        "account",
        "credential",
        "ended",
        "exchange",
        "head",
        "model",
        "own",
        "retry_after",
        "route",
        "verdict",
    )

    def __init__(
        self,
        route: Route,
        account: Account,
        credential: Credential,
        exchange: Exchange,
        head: ResponseHead,
        model: str,
        *,
        own: bool = False,
    ) -> None:
        """`model`: the name it was asked for there, which `models` may have chosen. `own`: the account is the caller's
        own, and none of aimux's."""
        self.route = route
        self.account = account
        self.credential = credential
        self.exchange = exchange
        self.head = head
        self.model = model
        self.own = own
        self.verdict: Verdict = RELAY
        self.retry_after: float | None = None
        """What to tell the client instead of the upstream's own words: another account may be free sooner."""
        self.ended = False

    @property
    def shared(self) -> Account | None:
        """The account, where it is one of aimux's."""
        return None if self.own else self.account

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            self.account.load(-1)
            self.exchange.discard()
