"""Changes to groups. All raise PeopleError where they can't be made, and StorageError; then nothing was changed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aimux.people import audit, rows
from aimux.people.errors import Taken, no_group
from aimux.people.transaction import amend, change, put, refuse_configured, told
from aimux.storage.times import now

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aimux.people.audit import Actor
    from aimux.people.models import Group
    from aimux.people.people import People
    from aimux.storage.engine import Connection


async def add(people: People, actor: Actor, group: Group) -> Group:
    """Add a group."""
    from aimux.storage.schema.people import groups

    refuse_configured("group", group.name, people.directory.configured.groups)
    group = replace(group, created_at=now())
    async with change(people) as connection:
        there = groups.select().where(groups.c.name == group.name, groups.c.removed_at.is_(None))
        if (await connection.execute(there)).first() is not None:
            raise Taken(f"there is a group {group.name!r} already")
        revision = await audit.append(connection, actor, "group.add", f"group:{group.name}", after=told(group))
        await put(connection, groups, group, revision)
    return group


async def change_group(people: People, actor: Actor, name: str, values: Mapping[str, Any]) -> Group:
    """Change some of a group's fields."""
    from aimux.storage.schema.people import groups

    refuse_configured("group", name, people.directory.configured.groups)
    return await amend(people, actor, "group", groups, known, name, values)


async def remove(people: People, actor: Actor, name: str) -> None:
    """Remove a group. Taken if it has members: what they may use would change without anybody saying so."""
    from aimux.storage.schema.people import groups

    refuse_configured("group", name, people.directory.configured.groups)
    async with change(people) as connection:
        before = await known(connection, name)
        if members := await _members(connection, people, name):
            some = ", ".join(members[:5]) + (f" and {len(members) - 5} more" if len(members) > 5 else "")
            raise Taken(f"the group {name!r} has members ({some})", remedy="take them out of it first")
        revision = await audit.append(connection, actor, "group.remove", f"group:{name}", before=told(before))
        gone = groups.update().where(groups.c.name == name)
        await connection.execute(gone.values(removed_at=now(), revision=revision))


async def _members(connection: Connection, people: People, group: str) -> list[str]:
    from aimux.storage.schema.people import users

    stored = (await connection.execute(users.select().where(users.c.removed_at.is_(None)))).all()
    names = {row.name for row in stored if group in row.groups}
    return sorted(names | {user.name for user in people.directory.configured.users.values() if group in user.groups})


async def known(connection: Connection, name: str) -> Group:
    """As the database has it. Unknown if it hasn't, or no longer."""
    from aimux.storage.schema.people import groups

    row = (await connection.execute(groups.select().where(groups.c.name == name))).first()
    found = rows.group(row) if row is not None else None
    if found is None:
        raise no_group(name)
    return found
