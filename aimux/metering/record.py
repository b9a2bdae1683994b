"""What is known of one request when it is over, and the sinks that get it."""

from __future__ import annotations

import logging
import re
from random import getrandbits
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aimux.accounts.explain import Choice
    from aimux.plugin.usage import Usage

    RecordSink = Callable[["RequestRecord"], None]
    """Takes a finished record, on the event loop's thread, and may keep it: it does not change any more."""

log = logging.getLogger("aimux.metering")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

TOLD = 512
"""Characters of a path that are shown and kept: a client's may have 32,000, and thousands of records stay in memory."""


class Sender(NamedTuple):
    """What a request's head says about its sender: made once for all requests of a connection with the same head."""

    mount: str = ""
    """The prefix, without a slash at its end ("" for the root)."""
    token: str = ""
    """Identifies the token without being one: "" for an anonymous caller."""
    groups: tuple[str, ...] = ()
    client: str = ""
    """The user agent's first word."""
    conversation: str = ""
    """The conversation, if headers name it."""
    request_class: str = ""
    """What it is for, in the client's own word (`main`, `subagent`, …)."""
    agent: str = ""
    parent_agent: str = ""
    address: str = ""
    """Where it came from, as far as trusted proxies say; "" for a unix socket's peer."""


NOBODY: Final = Sender()


class Step(NamedTuple):
    """An account was asked, or could not be. `status` 0: no answer. `seconds`: since the request."""

    provider: str
    account: str
    status: int
    action: str
    reason: str
    seconds: float
    model: str = ""
    """The model that it was asked for, if `models` renamed it."""
    upstream_id: str = ""
    """What the vendor calls this request."""


REFUSED = {
    "overage_forbidden": "What is included was used up, and limits forbid paid extra usage (overage: forbid).",
    "long_context_forbidden": "It was so long that a token costs more, and limits forbid that (long_context: forbid).",
    "share_used_up": "The user's fair share was used up while others were working (fair_share).",
}
"""A record's `error` if the request was refused because of others' shares or of money."""


class LimitHit(NamedTuple):
    """One of aimux's own limits that was used up. Amounts are requests, tokens or dollars; `free_at`: unix seconds."""

    limit: str
    """Such as `tokens_per_day`."""
    owner: str
    """Whose use counts under it: `user:NAME`, `group:NAME`, `token:ID`."""
    set_by: str
    """Where its amount comes from: the same, `member:GROUP` (each of its members has it) or `default`."""
    scope: str
    """Provider and model that it holds for; "": everything."""
    amount: float
    used: float
    free_at: float


OWN_LOGIN: Final = "(own-login)"
"""Stands in place of an account where the user brought a credential along; no account can have this name."""
TURN: Final = "TURN"
"""The method of a WebSocket's turn."""
LATER: Final = "LATER"
"""… and of what a batch or an answer in the background took: it is reported after the request that asked for it."""


class RequestRecord:
    """One request, or one turn of a WebSocket: made when its head has arrived, filled on its way.

    No field holds a secret; "" and None mean unknown. Not a dataclass: its `__init__` would still be interpreted if
    compiled, and take four times as long.
    """

    __slots__ = (
        "account",
        "attempts",
        "bytes_in",
        "bytes_out",
        "choices",
        "conversation",
        "cost",
        "duration",
        "error",
        "id",
        "lease",
        "limit",
        "method",
        "model",
        "path",
        "provider",
        "request_id",
        "sender",
        "status",
        "steps",
        "time",
        "ttfb",
        "usage",
        "user",
    )

    id: str
    """aimux's own id: unique, in the order of time."""
    time: float
    """Unix seconds at which the head had arrived."""
    method: str
    """TURN for a turn of a WebSocket, LATER for what was used after an answer and reported by a later one."""
    path: str
    """As the client sent it, mount included, percent-encoding kept, without the query; its first TOLD characters."""
    request_id: str
    """The id that the client knows: `x-request-id`, its own or aimux's."""
    user: str
    sender: Sender
    provider: str
    """The provider's instance name; "" if no mount matched."""
    account: str
    """The account that served the last attempt."""
    conversation: str
    status: int
    """What the client got; 0 if it left before the answer's head."""
    bytes_in: int
    """The request's body."""
    bytes_out: int
    """The answer's body, framing included."""
    ttfb: float | None
    """Seconds from `time` to the first byte handed to the client."""
    duration: float
    """Seconds from `time` to the end."""
    model: str
    """As the client asked for it; `usage.model` is what the upstream says it was."""
    usage: Usage | None
    cost: int | None
    """In billionths of a dollar, once it was worked out: for limits first, then for the ledger."""
    attempts: int
    """Requests sent upstream; 0 if aimux answered by itself."""
    error: str
    """What ended it early, in one word of a small set (`client_gone`, `upstream_lost`, `timeout`, …)."""
    lease: object
    """The room that limits have found for it, until it is settled: theirs alone. None: nothing is limited."""
    limit: LimitHit | None
    """The limit of aimux's own that refused it, if one did."""
    steps: list[Step]
    """How it was routed."""
    choices: tuple[Choice, ...]
    """Why there: what was weighed before each attempt, if there was a choice."""

    def __init__(
        self,
        id: str,  # noqa: A002 - as the field is called
        time: float,
        method: str,
        path: str,
        request_id: str = "",
        user: str = "",
        sender: Sender = NOBODY,
        provider: str = "",
        account: str = "",
        conversation: str = "",
        status: int = 0,
        bytes_in: int = 0,
        bytes_out: int = 0,
        ttfb: float | None = None,
        duration: float = 0.0,
        model: str = "",
        usage: Usage | None = None,
        cost: int | None = None,
        attempts: int = 0,
        error: str = "",
        limit: LimitHit | None = None,
        steps: list[Step] | None = None,
        choices: tuple[Choice, ...] = (),
    ) -> None:
        self.id = id
        self.time = time
        self.method = method
        self.path = path
        self.request_id = request_id
        self.user = user
        self.sender = sender
        self.provider = provider
        self.account = account
        self.conversation = conversation
        self.status = status
        self.bytes_in = bytes_in
        self.bytes_out = bytes_out
        self.ttfb = ttfb
        self.duration = duration
        self.model = model
        self.usage = usage
        self.cost = cost
        self.attempts = attempts
        self.error = error
        self.lease = None
        self.limit = limit
        self.steps = [] if steps is None else steps
        self.choices = choices


def new_id(now: float) -> str:
    """An id for a record that begins `now`: `req_` and 24 hexadecimal digits, in the order of time; 0.2 µs.

    It identifies a request and protects nothing, so it need not be random: os.urandom would be one more system call.
    """
    return "req_" + (int(now * 1000) << 48 | getrandbits(48)).to_bytes(12, "big").hex()


def request_id(headers: Mapping[str, str], own: str) -> str:
    """A request's id in answers and logs: its client's if that can be an id, else `own`."""
    given = headers.get("x-request-id")
    return given if given is not None and _REQUEST_ID.fullmatch(given) else own


class RecordSinks:
    """Hands each record to every sink: with `soon`, behind the answers of that round of the event loop, and to one sink
    after the other. One that fails is logged, and the others get theirs.
    """

    def __init__(self, *sinks: RecordSink) -> None:
        self._sinks = list(sinks)
        self._over: list[RequestRecord] = []
        self.soon: Callable[[Callable[[], object]], object] | None = None
        """The event loop's `call_soon`; None: each record is handed on at once. What a sink needs is in the processor's
        caches when its next record comes: under load a small request takes a twelfth less."""

    def add(self, sink: RecordSink) -> None:
        self._sinks.append(sink)

    def __call__(self, record: RequestRecord) -> None:
        over = self._over
        over.append(record)
        if self.soon is None:
            self.flush()
        elif len(over) == 1:
            self.soon(self.flush)

    def flush(self) -> bool:
        """Hand on what is over by now. Whether there was anything."""
        over, self._over = self._over, []
        for sink in self._sinks:
            for record in over:
                try:
                    sink(record)
                except Exception:  # a plugin's, or a fault of ours: the request is served, and its answer must get out
                    log.exception("%s: a sink of records failed", record.request_id)
        return bool(over)
