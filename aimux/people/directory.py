"""Everybody who may call, in memory: each change replaces it as a whole, and every request asks it without waiting.

`find` is one dictionary look-up however many users there are. What a token gives is worked out at its first use and
kept until the next change: a change need not go through 30,000 tokens.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, TypeVar

from aimux.people.scopes import Allowance, allowance

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aimux.people.models import Group, Token, User

T = TypeVar("T")


class Denied(Enum):
    """Why a token lets nobody in."""

    UNKNOWN = auto()
    REVOKED = auto()
    EXPIRED = auto()
    DISABLED = auto()
    """Its user is disabled."""
    # Of tokens signed elsewhere:
    EARLY = auto()
    """It is not valid yet."""
    FOREIGN = auto()
    """It was made for something else."""
    BARRED = auto()
    """Its subject was revoked."""
    PENDING = auto()
    """The key that it names is being fetched."""


@dataclass(frozen=True, slots=True, eq=False)
class Access:
    """What a valid token gives. `token_id` identifies it, and is not a secret."""

    user: User
    token_id: str
    expires_at: int | None
    allowance: Allowance | None
    """None: everything."""
    groups: frozenset[str] | None
    """Groups of accounts. None: accounts that are reserved for nobody."""
    own_login: bool
    """May send a credential of the vendor's along."""
    scopes: tuple[str, ...] = ()
    """The token's own scopes."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What the database holds. `tokens` by id, `hashes` by SHA-256; `revision`: of the newest change in it."""

    users: dict[str, User] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)
    hashes: dict[bytes, Token] = field(default_factory=dict)
    subjects: frozenset[tuple[str, str]] = frozenset()
    """Issuer and subject of tokens signed elsewhere that were revoked."""
    revision: int = 0

    def changed(
        self,
        revision: int,
        *,
        users: Mapping[str, User | None],
        groups: Mapping[str, Group | None],
        tokens: Iterable[Token],
        subjects: Mapping[tuple[str, str], bool],
    ) -> Stored:
        """A copy with the changes. None stands for what was removed; a subject is revoked, or no longer."""
        by_id, hashes = self.tokens, self.hashes
        fresh = list(tokens)
        if fresh:
            by_id = by_id | {token.id: token for token in fresh}
            hashes = hashes | {token.sha256: token for token in fresh}
        revoked = {subject for subject, is_revoked in subjects.items() if is_revoked}
        return Stored(
            _with(self.users, users),
            _with(self.groups, groups),
            by_id,
            hashes,
            (self.subjects - subjects.keys()) | revoked if subjects else self.subjects,
            revision,
        )


def _with(known: dict[str, T], changes: Mapping[str, T | None]) -> dict[str, T]:
    if not changes:
        return known
    copy = known | {name: value for name, value in changes.items() if value is not None}
    for name, value in changes.items():
        if value is None:
            copy.pop(name, None)
    return copy


@dataclass(frozen=True, slots=True)
class Configured:
    """What the configuration holds."""

    users: dict[str, User] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    hashes: dict[bytes, Token] = field(default_factory=dict)
    named: frozenset[str] = frozenset()
    """Groups that users or accounts name: they exist whether or not they have an entry of their own."""
    self_service: bool = False
    """Members issue and revoke tokens of their own."""


class Directory:
    """The configuration's people and the database's; if both have the same name, the configuration's counts."""

    def __init__(self, configured: Configured | None = None, stored: Stored | None = None) -> None:
        self.configured = configured = configured or Configured()
        self.stored = stored = stored or Stored()
        self.users = stored.users | configured.users
        self.groups = stored.groups | configured.groups
        self.reserved = frozenset(group.name for group in self.groups.values() if group.reserved)
        """Groups whose accounts serve nobody else."""
        self._hashes = stored.hashes | configured.hashes
        self._found: dict[bytes, tuple[bytes, Access]] = {}

    @property
    def empty(self) -> bool:
        """Nobody was ever given access: then only this machine is served."""
        return not self.users and not self._hashes

    def find(self, sha256: bytes, now: int) -> Access | Denied:
        """What the token with this SHA-256 gives."""
        found = self._found.get(sha256)
        # The look-up compares digests, no bit of which a caller controls; the second comparison costs 0.2 µs.
        if found is not None and hmac.compare_digest(found[0], sha256):
            access = found[1]
            return access if access.expires_at is None or now < access.expires_at else Denied.EXPIRED
        token = self._hashes.get(sha256)
        if token is None or not hmac.compare_digest(token.sha256, sha256):
            return Denied.UNKNOWN
        user = self.users.get(token.user)
        state = token.state(now)
        if state == "revoked" or user is None:
            return Denied.REVOKED
        if state == "expired":
            return Denied.EXPIRED
        if not user.enabled:
            return Denied.DISABLED
        access = self.access(user, token.id, token.expires_at, token.scopes)
        self._found[sha256] = (token.sha256, access)
        return access

    def access(self, user: User, token_id: str, expires_at: int | None, scopes: tuple[str, ...]) -> Access:
        """What a valid token of this user gives."""
        groups = [group for name in user.groups if (group := self.groups.get(name)) is not None]
        allowed = allowance([user.scopes, scopes], [group.scopes for group in groups])
        bound = frozenset(user.groups) or None
        return Access(
            user,
            token_id,
            expires_at,
            allowed,
            allowed.accounts(user.groups) if allowed is not None else bound,
            user.own_login or any(group.own_login for group in groups),
            scopes,
        )

    def known_groups(self) -> frozenset[str]:
        """The groups that a user can be put into."""
        return self.configured.named | self.groups.keys()

    def token_of(self, sha256: bytes) -> Token | None:
        """The token with this SHA-256, whatever its state."""
        return self._hashes.get(sha256)

    def token(self, name: str) -> Token | None:
        """The token with this id, whatever its state."""
        configured = (token for token in self.configured.hashes.values() if token.id == name)
        return self.stored.tokens.get(name) or next(configured, None)

    def members(self, group: str) -> list[str]:
        """The names of the users in a group."""
        return sorted(user.name for user in self.users.values() if group in user.groups)
