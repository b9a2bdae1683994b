"""What both OAuth servers keep: access tokens that expire, refresh tokens that rotate, families that die together."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aimux.simulator.accounts import SCOPES, Account, Family, stable

if TYPE_CHECKING:
    from collections.abc import Callable

ISSUER = "https://auth.openai.com"
SETUP_SCOPE = "user:inference"
SETUP_TOKEN_LIFETIME = 365 * 86400.0


class RefusedToken(Exception):
    """A token is not valid: `unknown`, `expired`, `reused`, or the reason why its family was revoked."""

    def __init__(self, reason: str, account: Account | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.account = account


@dataclass(frozen=True, slots=True)
class Issued:
    """What a token endpoint hands out. `refresh_token` is None for a setup token, and if nothing was rotated."""

    family: Family
    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_in: float
    id_token: str | None = field(default=None, repr=False)


class TokenStore:
    """Every token of every account of one vendor.

    `leeway`: how many times a used refresh token is still accepted instead of voiding its family (an answer can get
    lost on the way, and some servers forgive that; by default, as with strict ones, none).
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.leeway = 0
        self._access: dict[str, Family] = {}
        self._refresh: dict[str, Family] = {}

    def ever(self) -> set[str]:
        """Every token that was ever issued."""
        return {*self._access, *self._refresh}

    def login(self, account: Account, client_id: str, scope: str | None = None) -> Issued:
        """Begin a new family. The scope `user:inference` alone gives a setup token."""
        if scope is None:
            scope = SETUP_SCOPE if account.kind == "setup_token" else SCOPES[account.vendor]
        family = Family(account, client_id, scope, number=len(account.families))
        account.families.append(family)
        return self._issue(family)

    def _issue(self, family: Family, *, rotate: bool = True) -> Issued:
        account = family.account
        family.generation += 1
        now = self.clock()
        serial = stable(account.vendor, account.name, family.number, family.generation)
        setup = family.scope == SETUP_SCOPE
        lifetime = SETUP_TOKEN_LIFETIME if setup else account.token_lifetime
        id_token = None
        if account.vendor == "anthropic":
            family.access_token = f"sk-ant-oat01-simulator-{serial[:48]}"
        else:
            family.access_token = jwt(access_claims(family, now, now + lifetime, serial))
            id_token = jwt(id_claims(family, now, serial))
        self._access[family.access_token] = family
        account.expiries[family.access_token] = now + lifetime
        fresh = None
        if rotate and not setup:
            prefix = "sk-ant-ort01-" if account.vendor == "anthropic" else "rt_"
            fresh = family.refresh_token = f"{prefix}simulator-{serial[-48:]}"
            self._refresh[fresh] = family
        return Issued(family, family.access_token, fresh, lifetime, id_token)

    def owner(self, refresh_token: str) -> Account | None:
        """Whose refresh token this is or was."""
        family = self._refresh.get(refresh_token)
        return family.account if family else None

    def check(self, access_token: str) -> Family:
        """The family of a good access token. Raises RefusedToken."""
        family = self._access.get(access_token)
        if family is None:
            raise RefusedToken("unknown")
        if family.revoked:
            raise RefusedToken("revoked", family.account)
        if family.account.expiries[access_token] <= self.clock():
            raise RefusedToken("expired", family.account)
        return family

    def family_of(self, refresh_token: str, client_id: str) -> Family:
        """The family that this refresh token may renew now. A reused one voids its family. Raises RefusedToken."""
        family = self._refresh.get(refresh_token)
        if family is None or family.client_id != client_id:
            raise RefusedToken("unknown")
        if family.revoked:
            raise RefusedToken(family.revoked, family.account)
        if refresh_token != family.refresh_token:
            if self.leeway <= 0:
                family.revoked = "reused"
                raise RefusedToken("reused", family.account)
            self.leeway -= 1
        return family

    def renew(self, family: Family, *, rotate: bool = True) -> Issued:
        """New tokens for a family; with `rotate=False` the refresh token stays and none is handed out."""
        return self._issue(family, rotate=rotate)

    def revoke(self, token: str) -> None:
        """Void the family of an access or refresh token; an unknown one is nobody's loss (RFC 7009)."""
        family = self._access.get(token) or self._refresh.get(token)
        if family is not None:
            family.revoked = "revoked"


def jwt(claims: dict[str, Any]) -> str:
    """A token in the form of a JWT. Its signature is not real: only the simulator should accept it."""
    head = {"alg": "RS256", "kid": "simulator", "typ": "JWT"}
    parts = [json.dumps(part, separators=(",", ":")).encode() for part in (head, claims)] + [b"not-a-signature"]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def _auth_claims(account: Account) -> dict[str, Any]:
    return {
        "chatgpt_account_id": account.account_id,
        "chatgpt_plan_type": account.plan,
        "chatgpt_user_id": account.user_id,
        "user_id": account.user_id,
    }


def access_claims(family: Family, now: float, expires_at: float, serial: str) -> dict[str, Any]:
    """Claims of a ChatGPT access token."""
    account = family.account
    return {
        "aud": ["https://api.openai.com/v1"],
        "client_id": family.client_id,
        "exp": int(expires_at),
        "https://api.openai.com/auth": _auth_claims(account),
        "https://api.openai.com/profile": {"email": account.email, "email_verified": True},
        "iat": int(now),
        "iss": ISSUER,
        "jti": serial[:32],
        "nbf": int(now),
        "scp": family.scope.split(),
        "sub": f"auth0|{account.user_id}",
    }


def id_claims(family: Family, now: float, serial: str) -> dict[str, Any]:
    """Claims of a ChatGPT id token; it lives for an hour, as the real one does, and is of use after that."""
    account = family.account
    organization = {"id": f"org-{account.organization[:8]}", "is_default": True, "role": "owner", "title": "Personal"}
    return {
        "aud": [family.client_id],
        "email": account.email,
        "email_verified": True,
        "exp": int(now) + 3600,
        "https://api.openai.com/auth": _auth_claims(account) | {"organizations": [organization]},
        "iat": int(now),
        "iss": ISSUER,
        "jti": serial[32:],
        "sub": f"auth0|{account.user_id}",
    }
