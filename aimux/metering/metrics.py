"""The Prometheus metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from aimux.metering.record import RequestRecord
    from aimux.plugin.types import Credential, LimitWindow

RefreshOutcome = Literal["ok", "failed", "rejected"]


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


class Metrics:
    """Counts in plain numbers on the event loop's thread; a scrape turns them into Prometheus' text."""

    def __init__(
        self,
        *,
        accounts: Callable[[], Iterable[AccountView]] = tuple,
        certificate_not_after: Callable[[], float | None] = lambda: None,
    ) -> None:
        """`accounts` and `certificate_not_after` (unix seconds) are asked at each scrape."""
        raise NotImplementedError

    def opened(self, provider: str) -> None:
        """An answer's head went to a client of this provider; `closed` must follow."""
        raise NotImplementedError

    def closed(self, provider: str) -> None:
        """The answer is over, however it ended."""
        raise NotImplementedError

    def record(self, record: RequestRecord) -> None:
        """Count a request that is over."""
        raise NotImplementedError

    def refresh(self, provider: str, account: str, outcome: RefreshOutcome) -> None:
        """Count one renewal of a credential."""
        raise NotImplementedError

    def render(self) -> tuple[bytes, str]:
        """The page for `/metrics` and its content type."""
        raise NotImplementedError
