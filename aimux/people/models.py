"""Users, groups and tokens as they are in memory. Times are whole milliseconds since 1970, as in the database."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal


class Role(StrEnum):
    """What a user may do to aimux itself. Each role includes the ones before it."""

    MEMBER = "member"
    """Sees only their own user."""
    VIEWER = "viewer"
    """Sees everybody, and changes nothing."""
    ADMIN = "admin"

    def includes(self, role: Role) -> bool:
        return _RANKS[self] >= _RANKS[role]


_RANKS = {role: rank for rank, role in enumerate(Role)}


@dataclass(frozen=True, slots=True)
class User:
    """A person or machine that may call. `configured`: it is in the configuration, and can only be changed there."""

    name: str
    email: str | None = None
    role: Role = Role.MEMBER
    groups: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    enabled: bool = True
    pin_accounts: bool = False
    own_login: bool = False
    """May send a credential of the vendor's along."""
    configured: bool = False
    created_at: int | None = None

    def __post_init__(self) -> None:
        # The ledger's sums and the limits count once for each.
        object.__setattr__(self, "groups", tuple(dict.fromkeys(self.groups)))


@dataclass(frozen=True, slots=True)
class Group:
    """Users who share scopes, limits and accounts. `reserved`: its accounts serve nobody else."""

    name: str
    reserved: bool = False
    scopes: tuple[str, ...] = ()
    own_login: bool = False
    configured: bool = False
    created_at: int | None = None


TokenState = Literal["active", "expired", "revoked"]


@dataclass(frozen=True, slots=True)
class Token:
    """All that is kept about a token. `shown`: its first characters."""

    id: str
    user: str
    sha256: bytes = field(repr=False)
    shown: str = ""
    label: str = ""
    scopes: tuple[str, ...] = ()
    created_at: int | None = None
    expires_at: int | None = None
    revoked_at: int | None = None
    configured: bool = False

    def state(self, now: int) -> TokenState:
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"
