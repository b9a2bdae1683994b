"""Rows of the database as what they mean, and which of them are new."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aimux.people.models import Group, Role, Token, User

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import Row, Select
    from sqlalchemy.ext.asyncio import AsyncConnection

    from aimux.people.directory import Stored
    from aimux.storage import Database

PORTION = 500
"""Rows that are taken at once: requests are served between two of them (4 ms each)."""


async def read(database: Database, known: Stored) -> tuple[Stored, list[Token]] | None:
    """`known` with what was changed since, and the tokens among that; None where nothing was. Raises StorageError."""
    from sqlalchemy import func, select

    from aimux.storage.schema import people
    from aimux.storage.schema.audit import audit

    first = not known.revision
    async with database.read() as connection:
        revision = (await connection.execute(select(func.max(audit.c.id)))).scalar() or 0
        if revision == known.revision:
            return None

        def fresh(table: Any, alive: str) -> Select[Any]:
            changed: Select[Any] = table.select().where(table.c.revision > known.revision)
            return changed.where(getattr(table.c, alive).is_(None)) if first else changed

        users = [row async for row in _rows(connection, fresh(people.users, "removed_at"))]
        groups = [row async for row in _rows(connection, fresh(people.groups, "removed_at"))]
        since = people.tokens.c.revision > known.revision
        tokens = [token(row) async for row in _rows(connection, people.tokens.select().where(since))]
        subjects = people.revoked_subjects
        revoked = (await connection.execute(subjects.select().where(subjects.c.revision > known.revision))).all()
    stored = known.changed(
        revision,
        users={row.name: user(row) if row.removed_at is None else None for row in users},
        groups={row.name: group(row) if row.removed_at is None else None for row in groups},
        tokens=tokens,
        subjects={(row.issuer, row.subject): row.revoked_at is not None for row in revoked},
    )
    return stored, tokens


async def _rows(connection: AsyncConnection, query: Select[Any]) -> AsyncIterator[Row[Any]]:
    async with connection.stream(query.execution_options(yield_per=PORTION)) as result:
        async for row in result:
            yield row


def user(row: Row[Any]) -> User:
    """Of a row of `users`."""
    return User(
        row.name,
        row.email,
        Role(row.role),
        tuple(row.groups),
        tuple(row.scopes),
        row.enabled,
        row.pin_accounts,
        row.own_login,
        created_at=row.created_at,
    )


def group(row: Row[Any]) -> Group:
    """Of a row of `groups`."""
    return Group(row.name, row.reserved, tuple(row.scopes), row.own_login, created_at=row.created_at)


def token(row: Row[Any]) -> Token:
    """Of a row of `tokens`."""
    return Token(
        row.id,
        row.user,
        row.sha256,
        row.shown,
        row.label,
        tuple(row.scopes),
        row.created_at,
        row.expires_at,
        row.revoked_at,
    )
