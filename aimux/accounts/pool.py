"""All accounts of one provider instance."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from aimux.accounts.account import Account
    from aimux.accounts.selection import Selection
    from aimux.accounts.state import StateFile
    from aimux.accounts.vault import Vault
    from aimux.plugin.http import Http
    from aimux.plugin.provider import Provider


@dataclass(frozen=True, slots=True)
class PoolOptions:
    refresh_before_expiry: float = 300.0
    session_ttl: float = 3600.0
    max_sessions: int = 20_000
    state: StateFile | None = None
    clock: Callable[[], float] = time.time
    on_renewal: Callable[[Account, str], None] | None = None
    """Called with `renewed`, `adopted`, `rejected` or `unavailable` (for the metrics)."""


class AccountPool:
    accounts: dict[str, Account]

    def __init__(self, provider: Provider, vault: Vault, http: Http, *, options: PoolOptions | None = None) -> None:
        raise NotImplementedError

    async def load(self) -> None:
        """Find the accounts, or look again: new, removed and changed ones. Cheap when nothing changed."""
        raise NotImplementedError

    async def reconfigure(self, provider: Provider) -> None:
        """Take new settings; live state stays."""
        raise NotImplementedError

    def select(self, selection: Selection, now: float) -> Account | None:
        raise NotImplementedError

    def last_resort(self, selection: Selection, now: float) -> Account | None:
        raise NotImplementedError

    def retry_after(self, selection: Selection, now: float) -> float | None:
        """Seconds until an account is free (0: one is now); None where waiting doesn't help."""
        raise NotImplementedError

    def ready(self, now: float) -> bool:
        raise NotImplementedError

    async def close(self) -> None:
        """Wait for renewals under way. Nothing is cancelled: a rotated token has to reach the disk."""
        raise NotImplementedError
