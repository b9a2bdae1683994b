"""One account: its credential, and what is known of how it fares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aimux.plugin.types import Credential, LimitWindow, Verdict

Status = Literal["healthy", "cooling", "parked", "disabled"]


@dataclass(frozen=True, slots=True)
class AccountState:
    status: Status
    reason: str = ""
    remedy: str = ""
    until: float | None = None


class Account:
    name: str
    provider: str
    credential: Credential | None
    last_used: float | None

    @property
    def kind(self) -> str:
        raise NotImplementedError

    @property
    def plan(self) -> str | None:
        raise NotImplementedError

    @property
    def organization(self) -> str | None:
        raise NotImplementedError

    @property
    def limits(self) -> dict[str, LimitWindow]:
        raise NotImplementedError

    @property
    def in_flight(self) -> int:
        """Requests under way. The gateway does `account.in_flight += 1`, and `-= 1` in a `finally`."""
        raise NotImplementedError

    @in_flight.setter
    def in_flight(self, value: int) -> None:
        raise NotImplementedError

    def state(self, now: float) -> AccountState:
        raise NotImplementedError

    def usable(self, now: float) -> Credential | None:
        """The credential as it is, or None: call `renew` first."""
        raise NotImplementedError

    async def renew(self, rejected: Credential | None = None) -> Credential:
        """Raises RefreshRejected (the account is parked then) or RefreshUnavailable."""
        raise NotImplementedError

    def observe(self, limits: Iterable[LimitWindow], now: float) -> None:
        """Windows from an answer's headers. Call it before `apply` of the same answer's verdict."""
        raise NotImplementedError

    def apply(self, verdict: Verdict, now: float) -> None:
        raise NotImplementedError

    def park(self, reason: str, remedy: str = "") -> None:
        raise NotImplementedError

    def enable(self) -> None:
        raise NotImplementedError

    def disable(self) -> None:
        raise NotImplementedError
