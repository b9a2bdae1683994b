"""Operations on tokens, and on the caller's own identity."""

# ruff: noqa: TC001 - the table reads the annotations

from __future__ import annotations

from typing import TYPE_CHECKING

from aimux.control.api import people_views as views
from aimux.control.api.operations import Table
from aimux.control.api.parts import Parts
from aimux.control.api.people import read_scopes, show_known_group
from aimux.control.api.people_models import (
    IssuedToken,
    Me,
    NewOwnToken,
    NewToken,
    Rotation,
    Token,
    TokenId,
    TokenImport,
    TokenList,
    TokenPage,
    TokenQuery,
)
from aimux.control.api.problems import Refused
from aimux.control.principal import Principal, Role
from aimux.limits import stored
from aimux.limits.rules import Owner
from aimux.people import issuing
from aimux.people.listing import TokenFilter, list_page
from aimux.storage.times import now

if TYPE_CHECKING:
    from aimux.people import User

operation = Table()


@operation("GET", "/tokens", "List the tokens", role=Role.VIEWER)
async def list_tokens(parts: Parts, query: TokenQuery) -> TokenPage:
    """Includes ended ones, for 90 days."""
    wanted = TokenFilter(query.user, bytes.fromhex(query.sha256) if query.sha256 is not None else None, query.q)
    page, after = await list_page(parts.people, parts.uses, wanted, query.limit, query.after)
    return TokenPage(items=[views.token(token, use) for token, use in page], next=after)


@operation("POST", "/tokens", "Issue a token", status=201, errors=(404, 409))
async def issue_token(parts: Parts, body: NewToken, caller: Principal) -> IssuedToken:
    """It is only in this answer."""
    return await _issued(parts, caller, body.user, body)


@operation("POST", "/tokens/import", "Take over tokens by their SHA-256", status=201, errors=(404, 409))
async def import_tokens(parts: Parts, body: TokenImport, caller: Principal) -> TokenList:
    """All of them or none; known ones are left as they are, and are not in the answer."""
    wanted = [issuing.Import(bytes.fromhex(one.sha256), one.user, one.label) for one in body.tokens]
    added = await issuing.import_tokens(parts.people, caller.actor, wanted)
    return TokenList(items=[views.token(token, None) for token in added])


@operation("DELETE", "/tokens/{id}", "Revoke a token", status=204, errors=(409,))
async def revoke_token(parts: Parts, id: TokenId, caller: Principal) -> None:  # noqa: A002 - the path's name for it
    """Within a second every node refuses it, and its open requests have ended."""
    await issuing.revoke(parts.people, caller.actor, id)


@operation("POST", "/tokens/{id}/rotate", "Replace a token by a new one", status=201, errors=(409,))
async def rotate_token(parts: Parts, id: TokenId, body: Rotation, caller: Principal) -> IssuedToken:  # noqa: A002
    """With the same user, label, scopes and limits; what is used of these stays used."""
    return await _rotated(parts, caller, id, body)


# --- one's own -------------------------------------------------------------------------------------------------------


@operation("GET", "/me", "Show who I am", role=Role.MEMBER)
async def show_me(parts: Parts, caller: Principal) -> Me:
    """With the caller's groups and tokens."""
    user, directory = caller.user, parts.people.directory
    tokens: list[Token] = []
    if user is not None:
        page, _ = await list_page(parts.people, parts.uses, TokenFilter(user.name), issuing.MAX_TOKENS, None)
        tokens = [views.token(token, use) for token, use in page]
    return Me(
        name=caller.name,
        role=caller.role,
        user=views.user(user) if user is not None else None,
        groups=[show_known_group(parts, name) for name in user.groups] if user is not None else [],
        tokens=tokens,
        self_service=user is not None and directory.configured.self_service,
    )


@operation("POST", "/me/tokens", "Issue a token for myself", status=201, errors=(404, 409), role=Role.MEMBER)
async def issue_own_token(parts: Parts, body: NewOwnToken, caller: Principal) -> IssuedToken:
    """Where the configuration says `self_service: true`."""
    user = _self_service(parts, caller)
    _refuse_longer(caller, body.ttl)
    _refuse_freer(parts, caller)
    return await _issued(parts, caller, user.name, body)


@operation("DELETE", "/me/tokens/{id}", "Revoke a token of mine", status=204, errors=(409,), role=Role.MEMBER)
async def revoke_own_token(parts: Parts, id: TokenId, caller: Principal) -> None:  # noqa: A002
    """Where the configuration says `self_service: true`."""
    user = _self_service(parts, caller)
    await issuing.revoke(parts.people, caller.actor, id, owner=user.name)


@operation(
    "POST",
    "/me/tokens/{id}/rotate",
    "Replace a token of mine by a new one",
    status=201,
    errors=(409,),
    role=Role.MEMBER,
)
async def rotate_own_token(
    parts: Parts,
    id: TokenId,  # noqa: A002
    body: Rotation,
    caller: Principal,
) -> IssuedToken:
    """Where the configuration says `self_service: true`."""
    user = _self_service(parts, caller)
    _refuse_longer(caller, body.ttl)
    if id != caller.token_id:
        _refuse_freer(parts, caller)
    return await _rotated(parts, caller, id, body, owner=user.name)


async def _issued(parts: Parts, caller: Principal, user: str, body: NewOwnToken) -> IssuedToken:
    scopes = read_scopes(parts, body.scopes)
    return views.issued(
        await issuing.issue(parts.people, caller.actor, user, label=body.label, ttl=body.ttl, scopes=scopes)
    )


async def _rotated(
    parts: Parts, caller: Principal, name: str, body: Rotation, *, owner: str | None = None
) -> IssuedToken:
    issued = await issuing.rotate(
        parts.people, caller.actor, name, overlap=body.overlap or 0, ttl=body.ttl, owner=owner
    )
    keeper = parts.limits
    if await stored.pass_on(keeper.database, caller.actor, Owner("token", name), Owner("token", issued.token.id)):
        await keeper.refresh()
    return views.issued(issued)


def _self_service(parts: Parts, caller: Principal) -> User:
    """The caller, who may manage their own tokens. Refused 403."""
    if caller.user is None:
        raise Refused(403, "no-user", "The admin key has no tokens of its own.", remedy="POST /api/v1/tokens")
    if caller.narrow:
        raise Refused(
            403, "narrow", "A token with scopes can't issue or revoke tokens.", remedy="use one without scopes"
        )
    if not parts.people.directory.configured.self_service:
        remedy = "ask an administrator, or have `self_service: true` set in the configuration"
        raise Refused(403, "self-service", "Members can't issue or revoke tokens here.", remedy=remedy)
    return caller.user


def _refuse_longer(caller: Principal, ttl: int | None) -> None:
    """A token that expires can't issue one that outlives it, or it would never end. Refused 403."""
    if caller.expires_at is not None and (ttl is None or now() + ttl * 1000 > caller.expires_at):
        raise Refused(
            403,
            "outlives",
            "The token that asks for this ends sooner than the new one would.",
            remedy="give a shorter ttl, or use a token that does not expire",
        )


def _refuse_freer(parts: Parts, caller: Principal) -> None:
    """A token with limits of its own can't get hold of another one, which they would not limit. Refused 403."""
    policy = parts.limits.limits.policy
    owner = Owner("token", policy.successors.get(caller.token_id, caller.token_id))
    if any(rule.owner == owner for rule in policy.rules) or any(one.owner == owner for one in policy.forbidden):
        raise Refused(
            403,
            "limited",
            "A token with limits of its own can't issue another one, which would not have them.",
            remedy="use one that has none, or rotate this one",
        )
