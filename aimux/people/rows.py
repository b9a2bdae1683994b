"""Turns rows of the database into users, groups and tokens, and finds the new ones."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from aimux.people.models import Group, Role, Token, User

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from sqlalchemy import Row, Select, Table

    from aimux.people.directory import Stored
    from aimux.storage import Database
    from aimux.storage.engine import Connection

PORTION = 500
"""Rows that are taken at once: requests are served in between (every 4 ms)."""


async def read(database: Database, known: Stored) -> tuple[Stored, list[Token]] | None:
    """`known` with the changes since then, and the changed tokens; None if there were none. Raises StorageError."""
    first = not known.revision
    if first and (found := await database.quick(_WHOLE)) is not None:
        return _whole(known, found)

    from sqlalchemy import func, select

    from aimux.storage.schema import people
    from aimux.storage.schema.audit import audit

    async with database.read() as connection:
        revision = (await connection.execute(select(func.max(audit.c.id)))).scalar() or 0
        if revision == known.revision:
            return None

        def fresh(table: Table) -> Select[Any]:
            changed = table.select().where(table.c.revision > known.revision)
            return changed.where(table.c.removed_at.is_(None)) if first else changed

        # Rows are converted as they arrive: 10,000 at once would keep requests waiting for 70 ms.
        users = {row.name: user(row) async for row in _rows(connection, fresh(people.users))}
        groups = {row.name: group(row) async for row in _rows(connection, fresh(people.groups))}
        since = people.tokens.c.revision > known.revision
        tokens = [token(row) async for row in _rows(connection, people.tokens.select().where(since))]
        subjects = people.revoked_subjects
        revoked = (await connection.execute(subjects.select().where(subjects.c.revision > known.revision))).all()
    stored = known.changed(
        revision,
        users=users,
        groups=groups,
        tokens=tokens,
        subjects={(row.issuer, row.subject): row.revoked_at is not None for row in revoked},
    )
    return stored, tokens


_WHOLE = (
    "SELECT max(id) AS revision FROM audit",
    "SELECT * FROM users WHERE removed_at IS NULL",
    "SELECT * FROM groups WHERE removed_at IS NULL",
    "SELECT * FROM tokens",
    "SELECT * FROM revoked_subjects",
)
_JSON = frozenset({"groups", "scopes"})
_BOOLEAN = frozenset({"enabled", "pin_accounts", "own_login", "reserved"})


def _whole(known: Stored, found: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[Stored, list[Token]] | None:
    """The same from the driver's own rows of `_WHOLE`."""
    (newest,), users, groups, tokens, revoked = found
    if not newest["revision"]:
        return None
    every = [token(_typed(row)) for row in tokens]
    stored = known.changed(
        newest["revision"],
        users={row["name"]: user(_typed(row)) for row in users},
        groups={row["name"]: group(_typed(row)) for row in groups},
        tokens=every,
        subjects={(row["issuer"], row["subject"]): row["revoked_at"] is not None for row in revoked},
    )
    return stored, every


def _typed(row: Mapping[str, Any]) -> Any:
    """As SQLAlchemy would give it by the schema."""
    return SimpleNamespace(
        **{
            name: json.loads(value) if name in _JSON else bool(value) if name in _BOOLEAN else value
            for name, value in row.items()
        }
    )


async def _rows(connection: Connection, query: Select[Any]) -> AsyncIterator[Row[Any]]:
    async with connection.stream(query, execution_options={"yield_per": PORTION}) as result:
        async for portion in result.partitions():  # row by row would switch threads 40,000 times
            for row in portion:
                yield row


def user(row: Row[Any]) -> User | None:
    """Of a row of `users`; None where it was removed."""
    if row.removed_at is not None:
        return None
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


def group(row: Row[Any]) -> Group | None:
    """Of a row of `groups`; None where it was removed."""
    if row.removed_at is not None:
        return None
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
