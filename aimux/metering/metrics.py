"""What is counted: plain numbers on the hot path. `exposition` turns them into Prometheus' families at a scrape.

Measured: prometheus-client takes 0.4 µs for a counter and 0.8 µs for a histogram whose child is at hand (a lock, a
float, a walk over the buckets), 5 µs for what one request counts. `Metrics.record` takes 0.9 µs for the same, and
the import (70 ms) waits for the first scrape.

Every label is bounded: providers and accounts are those of the configuration, users (where they are wanted) count as
`other` past MAX_USERS, and models are those that an upstream charged tokens for; past MAX_MODELS (and a user's past
MAX_USER_MODELS) they count as `other` too.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

from aimux.metering.record import LATER, TURN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from aimux.metering.record import RequestRecord
    from aimux.plugin.types import Credential, LimitWindow
    from aimux.plugin.usage import Usage

RefreshOutcome = Literal["ok", "failed", "rejected"]

MAX_USERS = 500
MAX_MODELS = 100
MAX_USER_MODELS = 2000
OTHER: Final = "other"
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Bounds of both histograms: an error of our own takes a millisecond, a long turn ten minutes."""


class StateView(Protocol):
    @property
    def status(self) -> str: ...


class AccountView(Protocol):
    """What the metrics read of an account (`aimux.accounts.Account` is one)."""

    @property
    def provider(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def credential(self) -> Credential | None: ...
    @property
    def limits(self) -> Mapping[str, LimitWindow]: ...
    def state(self, now: float) -> StateView: ...


class Histogram:
    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.total += seconds


class ProviderCounts:
    __slots__ = ("attempts", "bytes_in", "bytes_out", "duration", "open", "ttfb")

    def __init__(self) -> None:
        self.open = 0
        self.attempts = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.duration = Histogram()
        self.ttfb = Histogram()


class Tokens:
    __slots__ = ("cache_read", "cache_write", "input", "output", "reasoning")

    def __init__(self) -> None:
        self.input = self.output = self.cache_read = self.cache_write = self.reasoning = 0

    def add(self, usage: Usage) -> None:
        self.input += usage.input_tokens
        self.output += usage.output_tokens
        self.cache_read += usage.cache_read_tokens
        self.cache_write += usage.cache_write_tokens
        self.reasoning += usage.reasoning_tokens

    def kinds(self) -> tuple[tuple[str, int], ...]:
        """Disjoint, so that their sum is the total; reasoning is a part of `output`."""
        return (
            ("input", self.input),
            ("output", self.output),
            ("cache_read", self.cache_read),
            ("cache_write", self.cache_write),
        )


class Kept(NamedTuple):
    """How what is to be kept fares: whether the database takes writes, bytes of requests that wait for it on the disk,
    and requests that are in the ledger no more."""

    database_up: bool = True
    waiting_bytes: int = 0
    lost_requests: int = 0


class Metrics:
    """Counts on the event loop's thread. The page may be made on another one."""

    def __init__(
        self,
        *,
        accounts: Callable[[], Iterable[AccountView]] = tuple,
        certificate_not_after: Callable[[], float | None] = lambda: None,
        kept: Callable[[], Kept] = Kept,
        per_user: bool = False,
    ) -> None:
        """`accounts`, `certificate_not_after` (unix seconds) and `kept` are asked at each scrape."""
        self.per_user = per_user
        self.accounts = accounts
        self.certificate_not_after = certificate_not_after
        self.kept = kept
        self.requests: defaultdict[tuple[str, str, int], int] = defaultdict(int)
        self.control: defaultdict[tuple[str, int], int] = defaultdict(int)
        """Requests outside the mounts, by method and status."""
        self.errors: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.refreshes: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self.providers: defaultdict[str, ProviderCounts] = defaultdict(ProviderCounts)
        self.models: dict[tuple[str, str], Tokens] = {}
        self.users: dict[str, int] = {}
        """Requests."""
        self.user_models: dict[tuple[str, str], Tokens] = {}

    def opened(self, provider: str) -> None:
        """An answer's head was sent to a client of this provider; `closed` must follow."""
        self.providers[provider].open += 1

    def closed(self, provider: str) -> None:
        """The answer is over, however it ended."""
        self.providers[provider].open -= 1

    def record(self, record: RequestRecord) -> None:
        """Count a request that is over."""
        provider = record.provider
        if not provider:
            self.control[record.method if record.method in METHODS else OTHER, record.status] += 1
            return
        if record.method != LATER:  # that is not a request
            self.requests[provider, record.account, record.status] += 1
            if record.error:
                self.errors[provider, record.error] += 1
            counts = self.providers[provider]
            if record.method != TURN:  # a turn's attempts and bytes are its socket's
                counts.attempts += record.attempts
                counts.bytes_in += record.bytes_in
                counts.bytes_out += record.bytes_out
            counts.duration.observe(record.duration)
            if record.ttfb is not None:
                counts.ttfb.observe(record.ttfb)
            if self.per_user:
                user = self._user(record)
                self.users[user] = self.users.get(user, 0) + 1
        usage = record.usage
        if usage is None or not (usage.output_tokens or usage.total_input):
            return  # a model without any charge may be a name that the client made up
        model = usage.model or record.model
        tokens = self.models.get((provider, model)) or self._new_model(provider, model)
        tokens.add(usage)
        if self.per_user:
            both = (self._user(record), model)
            (self.user_models.get(both) or self._new_user_model(*both)).add(usage)

    def _user(self, record: RequestRecord) -> str:
        return record.user if record.user in self.users or len(self.users) < MAX_USERS else OTHER

    def refresh(self, provider: str, account: str, outcome: RefreshOutcome) -> None:
        """Count one renewal of a credential."""
        self.refreshes[provider, account, outcome] += 1

    def _new_user_model(self, user: str, model: str) -> Tokens:
        return self.user_models.setdefault(
            (user, model if len(self.user_models) < MAX_USER_MODELS else OTHER), Tokens()
        )

    def _new_model(self, provider: str, model: str) -> Tokens:
        return self.models.setdefault((provider, model if len(self.models) < MAX_MODELS else OTHER), Tokens())
