"""Links that sign a browser in once, at any node. The database keeps a code's digest. Raise StorageError."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from aimux.people.tokens import digest
from aimux.storage.times import CLOCKS_APART, now

if TYPE_CHECKING:
    from sqlalchemy import Select

    from aimux.storage import Database

LIFETIME = 300
"""Seconds."""


async def make(database: Database, user: str, token_id: str) -> str:
    """A code for `user` ("": an administrator without a name). The session ends with the token that asked for it."""
    from aimux.storage.schema.people import sign_in_links as links

    code = secrets.token_urlsafe(24)
    row = {"sha256": digest(code), "user": user, "token_id": token_id, "expires_at": now() + LIFETIME * 1000}
    async with database.write() as connection:
        await connection.execute(links.delete().where(links.c.expires_at <= now()))
        await connection.execute(links.insert().values(**row))
    return code


async def user_of(database: Database, code: str) -> str | None:
    """Whom it would sign in; it stays valid."""
    async with database.read() as connection:
        row = (await connection.execute(_good(code))).one_or_none()
    return row.user if row is not None else None


async def use(database: Database, code: str) -> tuple[str, str] | None:
    """Use the link: whom it signs in, and the id of the token that asked for it."""
    from aimux.storage.schema.people import sign_in_links as links

    async with database.write() as connection:
        row = (await connection.execute(_good(code))).one_or_none()
        # If two use it at once, only one deletes it.
        gone = await connection.execute(links.delete().where(links.c.sha256 == digest(code)))
    return (row.user, row.token_id) if row is not None and gone.rowcount == 1 else None


def _good(code: str) -> Select[Any]:
    from aimux.storage.schema.people import sign_in_links as links

    lives = links.c.expires_at.between(now() + 1, now() + LIFETIME * 1000 + CLOCKS_APART)
    return links.select().where(links.c.sha256 == digest(code), lives)
