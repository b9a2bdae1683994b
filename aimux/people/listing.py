"""Lists of tokens with their last use, page by page from the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from aimux.people import rows
from aimux.people.upkeep import USED, Use
from aimux.storage.times import now

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from aimux.people.models import Token
    from aimux.people.people import People
    from aimux.people.upkeep import Uses


class TokenFilter(NamedTuple):
    """None: any."""

    user: str | None = None
    sha256: bytes | None = None
    q: str | None = None
    """A part of the user's name, the label or the first characters, in either case."""


def contains(q: str, *texts: str) -> bool:
    """Whether it is a part of one of them, in either case."""
    return any(q.lower() in text.lower() for text in texts)


async def list_page(
    people: People, uses: Uses, wanted: TokenFilter, limit: int, after: str | None
) -> tuple[list[tuple[Token, Use | None]], str | None]:
    """At most `limit` tokens after `after`, the configuration's first and then the oldest; and the next `after`.

    Raises StorageError.
    """
    from sqlalchemy import or_, tuple_

    from aimux.storage.schema.people import tokens

    cursor = _cursor(after)
    last, kept = uses.last(), await _kept(people)
    found = [
        (token, _later(kept.get(token.id), last, token.id))
        for token in sorted(people.directory.configured.hashes.values(), key=lambda token: token.id)
        if wanted.user in {None, token.user}
        and wanted.sha256 in {None, token.sha256}
        and (wanted.q is None or contains(wanted.q, token.user, token.label, token.shown))
        and (0, token.id) > cursor
    ]
    query = tokens.select().order_by(tokens.c.created_at, tokens.c.id).limit(limit + 1)
    query = query.where(tuple_(tokens.c.created_at, tokens.c.id) > cursor)
    if wanted.user is not None:
        query = query.where(tokens.c.user == wanted.user)
    if wanted.sha256 is not None:
        query = query.where(tokens.c.sha256 == wanted.sha256)
    if wanted.q is not None:
        texts = (tokens.c.user, tokens.c.label, tokens.c.shown)
        query = query.where(or_(*[text.icontains(wanted.q, autoescape=True) for text in texts]))
    if people.directory.stored.revision:  # otherwise nothing was ever stored
        async with people.database.read() as connection:
            for row in (await connection.execute(query)).all():
                found.append((rows.token(row), _later(_written(row), last, row.id)))
    page = found[:limit]
    return page, f"{page[-1][0].created_at or 0}-{page[-1][0].id}" if len(found) > limit else None


async def in_use(people: People, uses: Uses, users: Collection[str]) -> dict[str, tuple[int, int | None]]:
    """For those of these users who have tokens that may be used: how many, and when one was last used, in ms.

    Raises StorageError.
    """
    from aimux.storage.schema.people import tokens

    last, at, kept = uses.last(), now(), await _kept(people)
    found = [
        (token, _later(kept.get(token.id), last, token.id))
        for token in people.directory.configured.hashes.values()
        if token.user in users
    ]
    if people.directory.stored.revision:
        async with people.database.read() as connection:
            for row in (await connection.execute(tokens.select().where(tokens.c.user.in_(users)))).all():
                found.append((rows.token(row), _later(_written(row), last, row.id)))
    result: dict[str, tuple[int, int | None]] = {}
    for token, use in found:
        if token.state(at) == "active":
            count, used = result.get(token.user, (0, None))
            result[token.user] = count + 1, max(used or 0, use.at if use is not None else 0) or None
    return result


async def _kept(people: People) -> dict[str, Use]:
    """The last use of the configuration's tokens, as the database has it."""
    if not people.directory.configured.hashes:
        return {}
    from aimux.storage.schema.base import meta

    async with people.database.read() as connection:
        rows = (await connection.execute(meta.select().where(meta.c.key.startswith(USED, autoescape=True)))).all()
    told = {row.key.removeprefix(USED): row.value.partition(" ") for row in rows}
    return {name: Use(int(at), address) for name, (at, _, address) in told.items()}


def _written(row: Any) -> Use | None:
    return Use(row.used_at, row.used_from or "") if row.used_at is not None else None


def _cursor(after: str | None) -> tuple[int, str]:
    """Tokens are sorted by when they were made (the configuration's at 0) and by id."""
    if after is None:
        return (0, "")
    at, _, name = after.partition("-")
    return (int(at), name)


def _later(written: Use | None, here: Mapping[str, Use], token: str) -> Use | None:
    noted = here.get(token)
    return noted if noted is not None and (written is None or noted.at > written.at) else written
