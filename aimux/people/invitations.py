"""Invitations: whoever shows the code of one gets a token of its user, once. Raise PeopleError and StorageError."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aimux.people import audit
from aimux.people.errors import Unknown, no_user
from aimux.people.issuing import Issued, issue_within
from aimux.people.models import Role
from aimux.people.tokens import digest, make_id
from aimux.people.transaction import change
from aimux.storage.times import CLOCKS_APART, now

if TYPE_CHECKING:
    from sqlalchemy import Row

    from aimux.people.audit import Actor
    from aimux.people.people import People
    from aimux.storage.engine import Connection

DAYS = 7
LIFETIME = DAYS * 86_400_000
"""Milliseconds."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """An open invitation. Times are milliseconds."""

    id: str
    user: str
    expires_at: int


async def invite(people: People, actor: Actor, user: str) -> tuple[Invitation, str]:
    """A new invitation and its code, which is known only this once. An older one of the same user no longer works."""
    from aimux.storage.schema.people import invitations

    code = secrets.token_urlsafe(24)
    made = Invitation(make_id("inv"), user, now() + LIFETIME)
    async with change(people) as connection:
        if user not in people.directory.users:
            raise no_user(user)
        await connection.execute(invitations.delete().where(invitations.c.user == user))
        await connection.execute(invitations.delete().where(invitations.c.expires_at <= now()))
        await connection.execute(
            invitations.insert().values(
                id=made.id,
                sha256=digest(code),
                user=user,
                created_by=actor.name,
                created_at=now(),
                expires_at=made.expires_at,
            )
        )
        await audit.append(connection, actor, "invitation.make", f"user:{user}", after={"id": made.id})
    return made, code


async def look(people: People, code: str) -> Invitation:
    """The open invitation that a code belongs to. Unknown if there is none."""
    async with people.database.read() as connection:
        row = await _row(connection, people, code)
    return Invitation(row.id, row.user, row.expires_at)


async def accept(people: People, actor: Actor, code: str) -> Issued:
    """A token for the user who was invited; the invitation is used up in the same transaction."""
    from aimux.storage.schema.people import invitations

    async with change(people) as connection:
        row = await _row(connection, people, code)
        issued = await issue_within(connection, people, actor, row.user, "invitation")
        await connection.execute(invitations.delete().where(invitations.c.id == row.id))
    return issued


async def _row(connection: Connection, people: People, code: str) -> Row[tuple[object, ...]]:
    from aimux.storage.schema.people import invitations

    lives = invitations.c.expires_at.between(now() + 1, now() + LIFETIME + CLOCKS_APART)
    found = invitations.select().where(invitations.c.sha256 == digest(code), lives)
    row = (await connection.execute(found)).one_or_none()
    if row is None:
        raise Unknown("this invitation was used already, or is older than it may be", remedy="ask for another one")
    made_by = people.directory.users.get(row.created_by)  # none: the machine, or an admin by a token signed elsewhere
    if made_by is not None and not (made_by.enabled and made_by.role.includes(Role.ADMIN)):
        raise Unknown("whoever made this invitation is no admin any more", remedy="ask for another one")
    return row
