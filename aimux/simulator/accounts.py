"""The simulated accounts: who owns a credential, what is left of its limits, and what is scripted to go wrong.

Nothing here is secret: every credential is derived from the account's name, so it is the same at each start.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, field
from typing import Literal

from aimux.simulator.scenarios import Script

Vendor = Literal["anthropic", "openai"]
Kind = Literal["oauth", "setup_token", "api_key"]

CAPACITY = 20_000_000
"""Tokens in five hours, unless the simulator is told otherwise: a turn of 20,000 tokens moves the window by 0.1 %."""

WINDOWS: dict[Vendor, dict[str, float]] = {
    "anthropic": {"5h": 5 * 3600.0, "7d": 7 * 86400.0, "7d_oi": 7 * 86400.0},
    "openai": {"primary": 5 * 3600.0, "secondary": 7 * 86400.0},
}
TOKEN_LIFETIME: dict[Vendor, float] = {"anthropic": 8 * 3600.0, "openai": 10 * 86400.0}
SCOPES: dict[Vendor, str] = {
    "anthropic": "user:profile user:inference user:sessions:claude_code user:mcp_servers user:file_upload user:plugins",
    "openai": "openid profile email offline_access",
}
CLIENT_IDS: dict[Vendor, str] = {
    "anthropic": "9d1c250a-e61b-44d9-88ed-5944d1962f5e",
    "openai": "app_EMoamEEZ73f0CkXaXp7hrann",
}
"""Whom the accounts' first logins were made for: the vendors' own command line clients."""
DEFAULTS: tuple[tuple[str, Vendor, Kind], ...] = (
    ("claude", "anthropic", "oauth"),
    ("claude-setup", "anthropic", "setup_token"),
    ("claude-key", "anthropic", "api_key"),
    ("chatgpt", "openai", "oauth"),
    ("openai-key", "openai", "api_key"),
)
"""The accounts that a simulator has from the start."""
WARNING = 0.9
"""From this share on a window's status is `allowed_warning`."""


def stable(*parts: object) -> str:
    """64 hexadecimal digits that depend on the parts alone."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


@dataclass(slots=True)
class Window:
    """One limit window. `used` is a fraction; at 1 the account is refused until `resets_at` (unix seconds)."""

    name: str
    length: float
    capacity: float
    resets_at: float
    used: float = 0.0

    def roll(self, now: float) -> None:
        if now >= self.resets_at:
            self.used = 0.0
            self.resets_at = now + self.length

    @property
    def rejected(self) -> bool:
        return self.used >= 1

    @property
    def status(self) -> str:
        return "rejected" if self.rejected else "allowed_warning" if self.used >= WARNING else "allowed"


@dataclass(slots=True)
class Family:
    """One login: its rotating tokens live and die together. `revoked` says why it is dead."""

    account: Account
    client_id: str
    scope: str
    number: int
    generation: int = 0
    access_token: str = field(default="", repr=False)
    refresh_token: str | None = field(default=None, repr=False)
    revoked: str = ""


@dataclass(slots=True, eq=False)
class Account:
    """One account of a vendor. `families` are its logins; the first one exists from the start (OAuth kinds)."""

    name: str
    vendor: Vendor
    kind: Kind
    plan: str
    windows: dict[str, Window]
    token_lifetime: float
    organization: str = ""
    email: str = ""
    account_id: str = ""
    user_id: str = ""
    api_key: str | None = field(default=None, repr=False)
    requests: int = 0
    """Answers that the account gave, whatever their status."""
    script: Script = field(default_factory=Script)
    on_refresh: Script = field(default_factory=Script)
    """The same for renewals of this account's tokens."""
    families: list[Family] = field(default_factory=list, repr=False)
    expiries: dict[str, float] = field(default_factory=dict, repr=False)
    """Access token → unix seconds, for every access token that was issued."""

    def __post_init__(self) -> None:
        self.organization = self.organization or self._uuid("organization")
        self.account_id = self.account_id or self._uuid("account")
        self.user_id = self.user_id or f"user-{stable(self.name, 'user')[:24]}"
        self.email = self.email or f"{self.name}@simulator.example"
        if self.kind == "api_key" and self.api_key is None:
            prefix = "sk-ant-api03-" if self.vendor == "anthropic" else "sk-proj-"
            self.api_key = f"{prefix}simulator-{stable(self.name, 'key')[:40]}"

    def _uuid(self, what: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"simulator:{self.vendor}:{self.name}:{what}"))

    @property
    def family(self) -> Family:
        """The newest login."""
        return self.families[-1]

    @property
    def access_token(self) -> str:
        return self.family.access_token

    @property
    def refresh_token(self) -> str | None:
        return self.family.refresh_token

    @property
    def expires_at(self) -> float:
        """When the newest access token expires."""
        return self.expiries[self.access_token]

    def expire(self) -> None:
        """Expire every access token; the refresh token stays valid."""
        self.expiries = dict.fromkeys(self.expiries, 0.0)

    def revoke(self, reason: str = "revoked") -> None:
        """Void every login for good, as when its owner signs out everywhere. Logins that were void keep their
        reason."""
        for family in self.families:
            family.revoked = family.revoked or reason

    def exhaust(self, window: str, until: float) -> None:
        """Use a window up; it resets at `until` (unix seconds)."""
        self.windows[window].used = 1.0
        self.windows[window].resets_at = until

    def spend(self, tokens: int, now: float, *, model: str = "") -> None:
        """Count tokens against the windows; `7d_oi` counts Opus alone."""
        for window in self.windows.values():
            window.roll(now)
            if window.name != "7d_oi" or "opus" in model:
                window.used = min(1.0, window.used + tokens / window.capacity)

    def rejected(self, now: float, model: str = "") -> list[Window]:
        """The windows that refuse a request for this model."""
        for window in self.windows.values():
            window.roll(now)
        return [w for w in self.windows.values() if w.rejected and (w.name != "7d_oi" or "opus" in model)]


def make_account(
    name: str,
    vendor: Vendor,
    kind: Kind,
    now: float,
    *,
    plan: str | None,
    capacity: float,
    organization: str,
) -> Account:
    """An account with fresh windows (none for an API key). `capacity`: tokens in five hours, a tenth of seven days'."""
    windows = {}
    if kind != "api_key":
        windows = {
            window: Window(window, length, capacity * (1 if length < 86400 else 10), now + length)
            for window, length in WINDOWS[vendor].items()
        }
    if plan is None:
        plan = "api" if kind == "api_key" else "max" if vendor == "anthropic" else "plus"
    return Account(name, vendor, kind, plan, windows, TOKEN_LIFETIME[vendor], organization=organization)
