"""Operations on users and groups."""

# ruff: noqa: TC001 - the table reads the annotations

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aimux.config.scopes import ScopeError, parse_scope
from aimux.control.api import people_views as views
from aimux.control.api.limits import nearest_limits
from aimux.control.api.models import GroupName, PageQuery
from aimux.control.api.operations import Table
from aimux.control.api.parts import Parts
from aimux.control.api.people_models import (
    Group,
    GroupChange,
    GroupPage,
    NewGroup,
    NewUser,
    User,
    UserChange,
    UserDetails,
    UserName,
    UserPage,
    UserQuery,
)
from aimux.control.api.problems import Refused, sentence
from aimux.control.principal import Principal, Role
from aimux.people import groups, users
from aimux.people.errors import no_group, no_user
from aimux.people.listing import contains, in_use
from aimux.people.models import Group as KnownGroup
from aimux.people.models import User as KnownUser

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

operation = Table()


@operation("GET", "/users", "List the users", role=Role.VIEWER)
async def list_users(parts: Parts, query: UserQuery) -> UserPage:
    """Those of the configuration and those of the database."""
    known = parts.people.directory.users
    names = sorted(known) if query.group is None else parts.people.directory.members(query.group)
    if query.q is not None:
        names = [name for name in names if contains(query.q, name, known[name].email or "")]
    page, after = _page(names, query)
    details = await _details(parts, page) if query.details else {}
    return UserPage(items=[views.user(known[name], details.get(name)) for name in page], next=after)


async def _details(parts: Parts, names: Sequence[str]) -> dict[str, UserDetails]:
    having = await in_use(parts.people, parts.uses, names)
    nearest = await nearest_limits(parts, names)
    return {name: views.details(*having.get(name, (0, None)), nearest.get(name)) for name in names}


@operation("POST", "/users", "Add a user", status=201, errors=(404, 409))
async def add_user(parts: Parts, body: NewUser, caller: Principal) -> User:
    """Without a token: issue one next."""
    new = KnownUser(
        body.name,
        body.email,
        body.role,
        tuple(body.groups),
        read_scopes(parts, body.scopes),
        pin_accounts=body.pin_accounts,
        own_login=body.own_login,
    )
    return views.user(await users.add(parts.people, caller.actor, new))


@operation("GET", "/users/{name}", "Show a user", role=Role.VIEWER)
async def show_user(parts: Parts, name: UserName) -> User:
    return views.user(_user(parts, name))


@operation("PATCH", "/users/{name}", "Change a user", errors=(409,))
async def change_user(parts: Parts, name: UserName, body: UserChange, caller: Principal) -> User:
    """This includes whether the user is enabled: a disabled user's tokens are refused, and open requests end."""
    values = _values(parts, body.model_dump(exclude_unset=True))
    return views.user(await users.change_user(parts.people, caller.actor, name, values))


@operation("DELETE", "/users/{name}", "Remove a user", status=204, errors=(409,))
async def remove_user(parts: Parts, name: UserName, caller: Principal) -> None:
    """With all tokens, which never work again; a later user of the same name gets new ones."""
    await users.remove(parts.people, caller.actor, name)


@operation("GET", "/groups", "List the groups", role=Role.VIEWER)
async def list_groups(parts: Parts, query: PageQuery) -> GroupPage:
    """Includes groups that only users or accounts of the configuration name."""
    page, after = _page(sorted(parts.people.directory.known_groups()), query)
    return GroupPage(items=[show_known_group(parts, name) for name in page], next=after)


@operation("POST", "/groups", "Add a group", status=201, errors=(404, 409))
async def add_group(parts: Parts, body: NewGroup, caller: Principal) -> Group:
    new = KnownGroup(body.name, body.reserved, read_scopes(parts, body.scopes), body.own_login)
    return views.group(await groups.add(parts.people, caller.actor, new), parts)


@operation("GET", "/groups/{name}", "Show a group", role=Role.VIEWER)
async def show_group(parts: Parts, name: GroupName) -> Group:
    if name not in parts.people.directory.known_groups():
        raise no_group(name)
    return show_known_group(parts, name)


@operation("PATCH", "/groups/{name}", "Change a group", errors=(409,))
async def change_group(parts: Parts, name: GroupName, body: GroupChange, caller: Principal) -> Group:
    values = _values(parts, body.model_dump(exclude_unset=True))
    return views.group(await groups.change_group(parts.people, caller.actor, name, values), parts)


@operation("DELETE", "/groups/{name}", "Remove a group", status=204, errors=(409,))
async def remove_group(parts: Parts, name: GroupName, caller: Principal) -> None:
    """Only a group without members: otherwise what they may use would change."""
    await groups.remove(parts.people, caller.actor, name)


def show_known_group(parts: Parts, name: str) -> Group:
    """A group without an entry of its own shares nothing."""
    directory = parts.people.directory
    found = directory.groups.get(name) or KnownGroup(name, configured=name in directory.configured.named)
    return views.group(found, parts)


def read_scopes(parts: Parts, scopes: Iterable[str]) -> tuple[str, ...]:
    """In their full form. Refused 404 for a provider that does not exist."""
    try:
        return tuple(dict.fromkeys(parse_scope(scope, parts.pools.keys()) for scope in scopes))
    except ScopeError as error:
        raise Refused(404, "no-such-scope", sentence(str(error)), remedy=error.remedy) from None


def _values(parts: Parts, given: dict[str, Any]) -> dict[str, Any]:
    if "scopes" in given:
        given["scopes"] = read_scopes(parts, given["scopes"])
    if "groups" in given:
        given["groups"] = tuple(given["groups"])
    return given


def _user(parts: Parts, name: str) -> KnownUser:
    found = parts.people.directory.users.get(name)
    if found is None:
        raise no_user(name)
    return found


def _page(names: Sequence[str], query: PageQuery) -> tuple[Sequence[str], str | None]:
    left = [name for name in names if query.after is None or name > query.after]
    page = left[: query.limit]
    return page, page[-1] if len(left) > len(page) else None
