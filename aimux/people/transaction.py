"""What every change to people has in common: one transaction, its entry in the audit log, and a fresh snapshot."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeVar

from aimux.people import audit
from aimux.people.errors import Fixed
from aimux.people.people import TOPIC

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Container, Mapping

    from sqlalchemy import Table

    from aimux.people.audit import Actor
    from aimux.people.models import Group, Token, User
    from aimux.people.people import People
    from aimux.storage.engine import Connection


T = TypeVar("T", "Group", "User")


@asynccontextmanager
async def change(people: People) -> AsyncIterator[Connection]:
    """A transaction that no other change overlaps; its changes hold here when this ends.

    Raises StorageError; then nothing was changed.
    """
    async with people.database.write(TOPIC) as connection:
        await audit.lock(connection)
        yield connection
    await people.catch_up()


async def amend(
    people: People,
    actor: Actor,
    kind: str,
    table: Table,
    known: Callable[[Connection, str], Awaitable[T]],
    name: str,
    values: Mapping[str, Any],
) -> T:
    """Change some fields of what `known` finds by name; its `Unknown` ends the change."""
    async with change(people) as connection:
        before = await known(connection, name)
        after = replace(before, **values)
        if after != before:
            target = f"{kind}:{name}"
            revision = await audit.append(
                connection, actor, f"{kind}.change", target, before=told(before), after=told(after)
            )
            await connection.execute(table.update().where(table.c.name == name).values(**values, revision=revision))
    return after


async def put(connection: Connection, table: Table, thing: User | Group, revision: int) -> None:
    """Insert the row of something new, or bring back the removed one with its name."""
    values: dict[str, Any] = {**asdict(thing), "removed_at": None, "revision": revision}
    del values["configured"]
    there = table.update().where(table.c.name == thing.name).values(values)
    if not (await connection.execute(there)).rowcount:
        await connection.execute(table.insert().values(values))


def refuse_configured(kind: str, name: str, configured: Container[str]) -> None:
    """Raises Fixed."""
    if name in configured:
        raise Fixed(f"the {kind} {name!r} stands in the configuration", remedy="change it there, and reload")


def told(thing: User | Group | Token) -> dict[str, Any]:
    """What the audit log records of it: its fields, without its name and those that never change."""
    said = asdict(thing)
    for unsaid in ("name", "id", "sha256", "configured", "created_at"):
        said.pop(unsaid, None)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in said.items()}
