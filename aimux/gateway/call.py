"""What the attempt loop works on: where requests can go, one client's request, and one upstream's answer to it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aimux.gateway.headers import NEVER_TO_CLIENT, NONE, Dropped
from aimux.limits import ANYBODY, Who
from aimux.metering.record import NOBODY, Step
from aimux.plugin.provider import Provider
from aimux.plugin.types import RELAY, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aimux.accounts import Account, AccountPool, Selection
    from aimux.gateway.auth import Caller
    from aimux.gateway.epoch import Epoch
    from aimux.gateway.models import Target
    from aimux.gateway.restraint import Restraint
    from aimux.gateway.websockets import Handshake
    from aimux.http.head import ResponseHead
    from aimux.http.request import RequestHead as ReceivedHead
    from aimux.http.turn import Turn
    from aimux.metering.record import RequestRecord, Sender
    from aimux.plugin.types import Body, Credential, RequestHead
    from aimux.relay.exchange import Exchange
    from aimux.relay.pool import Origin


MAX_ID = 128
"""Characters of a vendor's id that are kept."""


@dataclass(slots=True)
class Route:
    """A provider with its accounts, ready to serve."""

    provider: Provider
    accounts: AccountPool
    required: bool = True
    """The configuration names it: without an account that can serve, aimux isn't ready."""
    dropped: Dropped = NONE
    """Headers of clients that don't go upstream, beside those that never do."""
    blocked: frozenset[str] = field(init=False)
    """Header names of an answer that don't reach the client."""
    watches_openings: bool = field(init=False)
    extra_headers: dict[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.blocked = NEVER_TO_CLIENT | self.provider.hidden_headers
        self.watches_openings = type(self.provider).opening is not Provider.opening
        self.extra_headers = {
            name.lower(): value.get_secret_value() for name, value in self.provider.settings.headers.items()
        }

    def __hash__(self) -> int:
        return id(self)


@dataclass(slots=True)
class Admitted:
    """What follows from a request's head in one epoch, kept for its connection's next request with the same head."""

    epoch: Epoch | None
    """None: it is no client's."""
    route: Route
    """Of the mount."""
    caller: Caller
    head: RequestHead
    """As providers see it."""
    received: ReceivedHead
    """The same, with its lines."""
    sender: Sender = NOBODY
    """What the head says, for the record."""
    who: Who = ANYBODY
    counted: bool = False
    """Limits count such a request."""
    asks_usage: bool = False
    """It is the client's question how much of its limits is used."""
    sent: tuple[Route, Credential, Origin, bytes] | None = field(default=None, repr=False)
    """The last request's way, and the head that it went up with, but for its length: `Provider.prepare` is pure."""


@dataclass(slots=True)
class Call:
    """A client's request as the attempts need it. `targets` are tried in their order."""

    admitted: Admitted
    body: Body
    record: RequestRecord
    targets: Sequence[Target]
    selection: Selection
    upgrade: Handshake | None = None
    turn: Turn[Any] | None = None
    """What drives it; None: a task."""
    restraint: Restraint | None = None
    """Accounts that have to be left alone; None: there can be none."""

    @property
    def head(self) -> RequestHead:
        return self.admitted.head

    def note(self, account: str, status: int, action: str, reason: str) -> None:
        """Remember a step for `aimux why`."""
        record = self.record
        record.steps.append(Step(record.provider, account, status, action, reason, time.time() - record.time))

    def note_answer(self, attempt: Attempt) -> None:
        """Remember an upstream's answer."""
        record, head, verdict = self.record, attempt.head, attempt.verdict
        model = "" if attempt.model == record.model else attempt.model
        vendors = head.get("request-id") or head.get("x-request-id")
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


@dataclass(slots=True)
class Attempt:
    """One answer of an upstream, not yet sent to the client. Its account is in flight until `end`."""

    route: Route
    account: Account
    credential: Credential
    exchange: Exchange
    head: ResponseHead
    model: str
    """The name it was asked for there, which `models` may have chosen."""
    verdict: Verdict = RELAY
    retry_after: float | None = None
    """What to tell the client instead of the upstream's own: another account may be free sooner."""
    ended: bool = False

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            self.account.load(-1)
            self.exchange.discard()
