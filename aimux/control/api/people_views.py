"""Users, groups and tokens as the API shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aimux.control.api import people_models as models
from aimux.control.api.views import moment
from aimux.storage.times import now

if TYPE_CHECKING:
    from aimux.control.api.limit_models import Used
    from aimux.control.api.parts import Parts
    from aimux.people import Group, Token, User
    from aimux.people.issuing import Issued
    from aimux.people.upkeep import Use


def user(one: User, details: models.UserDetails | None = None) -> models.User:
    """A user."""
    return models.User(
        name=one.name,
        email=one.email,
        role=one.role,
        groups=list(one.groups),
        scopes=list(one.scopes),
        enabled=one.enabled,
        pin_accounts=one.pin_accounts,
        own_login=one.own_login,
        configured=one.configured,
        created_at=_when(one.created_at),
        details=details,
    )


def details(tokens: int, used: int | None, nearest: Used | None) -> models.UserDetails:
    """How many tokens a user has, when one was last used, and the limit that is nearest."""
    return models.UserDetails(tokens=tokens, used_at=_when(used), nearest_limit=nearest)


def group(one: Group, parts: Parts) -> models.Group:
    """A group, with how many are in it."""
    return models.Group(
        name=one.name,
        reserved=one.reserved,
        scopes=list(one.scopes),
        own_login=one.own_login,
        members=len(parts.people.directory.members(one.name)),
        accounts=[
            f"{account.provider}/{account.name}"
            for pool in parts.pools.values()
            for account in pool.accounts.values()
            if one.name in account.settings.groups
        ],
        configured=one.configured,
        created_at=_when(one.created_at),
    )


def token(one: Token, use: Use | None) -> models.Token:
    """A token and its last use."""
    return models.Token(
        id=one.id,
        user=one.user,
        label=one.label,
        shown=one.shown,
        scopes=list(one.scopes),
        state=one.state(now()),
        created_at=_when(one.created_at),
        expires_at=_when(one.expires_at),
        revoked_at=_when(one.revoked_at),
        used_at=_when(use.at) if use is not None else None,
        used_from=use.address if use is not None else None,
        configured=one.configured,
    )


def issued(one: Issued) -> models.IssuedToken:
    """A new token with its secret."""
    return models.IssuedToken(
        id=one.token.id,
        token=one.secret,
        user=one.token.user,
        label=one.token.label,
        expires_at=_when(one.token.expires_at),
    )


def _when(milliseconds: int | None) -> Any:
    return moment(None if milliseconds is None else milliseconds / 1000)
