"""Changes to users. All raise PeopleError where they can't be made, and StorageError; then nothing was changed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aimux.people import audit, rows
from aimux.people.errors import Taken, Unknown, no_user
from aimux.people.transaction import amend, change, put, refuse_configured, told
from aimux.storage.times import now

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from aimux.people.audit import Actor
    from aimux.people.models import User
    from aimux.people.people import People
    from aimux.storage.engine import Connection


async def add(people: People, actor: Actor, user: User) -> User:
    """Add a user. Tokens and invitations of a former user of this name stay ended."""
    from aimux.storage.schema.people import invitations, tokens, users

    refuse_configured("user", user.name, people.directory.configured.users)
    user = replace(user, created_at=now())
    async with change(people) as connection:
        await _check_groups(connection, people, user.groups)
        there = users.select().where(users.c.name == user.name, users.c.removed_at.is_(None))
        if (await connection.execute(there)).first() is not None:
            raise Taken(f"there is a user {user.name!r} already")
        revision = await audit.append(connection, actor, "user.add", f"user:{user.name}", after=told(user))
        await put(connection, users, user, revision)
        left = tokens.update().where(tokens.c.user == user.name, tokens.c.revoked_at.is_(None))
        await connection.execute(left.values(revoked_at=user.created_at, revision=revision))
        await connection.execute(invitations.delete().where(invitations.c.user == user.name))
    return user


async def change_user(people: People, actor: Actor, name: str, values: Mapping[str, Any]) -> User:
    """Change some of a user's fields."""
    from aimux.storage.schema.people import users

    refuse_configured("user", name, people.directory.configured.users)

    async def found(connection: Connection, name: str) -> User:
        await _check_groups(connection, people, values.get("groups", ()))
        return await known(connection, name)

    return await amend(people, actor, "user", users, found, name, values)


async def remove(people: People, actor: Actor, name: str) -> None:
    """Remove a user with all tokens, which end everywhere, and the invitations that the user made."""
    from aimux.storage.schema.people import invitations, sessions, sign_in_links, tokens, users

    refuse_configured("user", name, people.directory.configured.users)
    async with change(people) as connection:
        before = await known(connection, name)
        revision = await audit.append(connection, actor, "user.remove", f"user:{name}", before=told(before))
        at = now()
        gone = users.update().where(users.c.name == name)
        await connection.execute(gone.values(removed_at=at, revision=revision))
        live = tokens.update().where(tokens.c.user == name, tokens.c.revoked_at.is_(None))
        await connection.execute(live.values(revoked_at=at, revision=revision))
        for table in (invitations, sessions, sign_in_links):
            await connection.execute(table.delete().where(table.c.user == name))
        await connection.execute(invitations.delete().where(invitations.c.created_by == name))


def check_groups(wanted: Iterable[str], known: Collection[str]) -> None:
    """Raises Unknown for a group that is not among those that are known."""
    for group in wanted:
        if group not in known:
            there = f"there are: {', '.join(sorted(known))}" if known else "there is none yet"
            raise Unknown(f"there is no group {group!r}; {there}", remedy=f"aimux groups add {group}")


async def _check_groups(connection: Connection, people: People, wanted: Collection[str]) -> None:
    """As the database has them: at this moment another node may add or remove one."""
    from aimux.storage.schema.people import groups

    if wanted:
        stored = (await connection.execute(groups.select().where(groups.c.removed_at.is_(None)))).all()
        configured = people.directory.configured
        check_groups(wanted, {row.name for row in stored} | configured.named | configured.groups.keys())


async def known(connection: Connection, name: str) -> User:
    """As the database has it. Unknown if it hasn't, or no longer."""
    from aimux.storage.schema.people import users

    row = (await connection.execute(users.select().where(users.c.name == name))).first()
    found = rows.user(row) if row is not None else None
    if found is None:
        raise no_user(name)
    return found
