"""Changes to tokens. All raise PeopleError where they can't be made, and StorageError; then nothing was changed."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from aimux.people import audit, rows, users
from aimux.people.errors import Fixed, Invalid, Taken, Unknown
from aimux.people.models import Token
from aimux.people.tokens import SHOWN, digest, make_id, make_token
from aimux.people.transaction import change, told
from aimux.storage.times import now

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aimux.people.audit import Actor
    from aimux.people.people import People
    from aimux.storage.engine import Connection

MAX_TOKENS = 1000
"""Tokens of one user that are neither revoked nor expired: a loop that makes them ends here."""


class Issued(NamedTuple):
    """A token, and its secret, which is known only this once."""

    token: Token
    secret: str

    def __repr__(self) -> str:
        return f"Issued({self.token.id})"


class Import(NamedTuple):
    """A token that somebody already has, by its SHA-256."""

    sha256: bytes
    user: str
    label: str = ""

    def __repr__(self) -> str:
        return f"Import({self.user!r})"


async def issue(
    people: People, actor: Actor, user: str, *, label: str = "", ttl: float | None = None, scopes: Sequence[str] = ()
) -> Issued:
    """A new token for a user, of the configuration or not. `ttl`: seconds; None: it does not expire."""
    from sqlalchemy import or_

    from aimux.storage.schema.people import tokens

    at = now()
    issued = _make(user, label, tuple(scopes), at, ttl)
    async with change(people) as connection:
        await _check_user(connection, people, user)
        lasts = or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > at)
        live = tokens.select().where(tokens.c.user == user, tokens.c.revoked_at.is_(None), lasts).limit(MAX_TOKENS)
        if len((await connection.execute(live)).all()) >= MAX_TOKENS:
            raise Taken(f"{user!r} has {MAX_TOKENS} tokens", remedy="revoke some of them")
        await _insert(connection, actor, "token.issue", issued.token)
    return issued


async def issue_within(connection: Connection, people: People, actor: Actor, user: str, label: str) -> Issued:
    """The same as a part of another change: a token that does not expire, for all that its user may use."""
    issued = _make(user, label, (), now(), None)
    await _check_user(connection, people, user)
    await _insert(connection, actor, "token.issue", issued.token)
    return issued


async def revoke(people: People, actor: Actor, name: str, *, owner: str | None = None) -> Token:
    """Revoke a token for good, by its id. `owner`: whose it has to be. One that has ended already stays as it is."""
    async with change(people) as connection:
        before = await _token(connection, people, name, owner)
        if before.revoked_at is not None:
            return before
        after = replace(before, revoked_at=now())
        await _update(connection, actor, "token.revoke", before, after)
    return after


async def rotate(
    people: People,
    actor: Actor,
    name: str,
    *,
    overlap: float = 0.0,
    ttl: float | None = None,
    owner: str | None = None,
) -> Issued:
    """A new token in place of an old one, which stays valid for `overlap` more seconds.

    Without a `ttl` the new one lasts as long as the old one was made to.
    """
    at = now()
    async with change(people) as connection:
        before = await _token(connection, people, name, owner)
        if before.state(at) != "active":
            raise Taken(f"the token {name} is {before.state(at)}", remedy="issue a new one")
        await _check_user(connection, people, before.user)
        if ttl is None and before.expires_at is not None and before.created_at is not None:
            ttl = (before.expires_at - before.created_at) / 1000
        issued = _make(before.user, before.label, before.scopes, at, ttl)
        await _insert(connection, actor, "token.issue", issued.token)
        if overlap <= 0:
            after = replace(before, revoked_at=at)
        else:
            end = at + int(overlap * 1000)
            after = replace(before, expires_at=end if before.expires_at is None else min(before.expires_at, end))
        await _update(connection, actor, "token.rotate", before, after)
    return issued


async def import_tokens(people: People, actor: Actor, imports: Sequence[Import]) -> list[Token]:
    """Take over tokens that people already have: all of them or none. Known ones are left as they are."""
    from aimux.storage.schema.people import tokens

    at = now()
    async with change(people) as connection:
        for user in sorted({one.user for one in imports}):
            await _check_user(connection, people, user)
        wanted = [one.sha256 for one in imports]
        found = (await connection.execute(tokens.select().where(tokens.c.sha256.in_(wanted)))).all()
        owners = {row.sha256: row.user for row in found}
        added = []
        for one in imports:
            owner = owners.setdefault(one.sha256, "")
            if not owner:
                owners[one.sha256] = one.user
                added.append(Token(make_id("tok"), one.user, one.sha256, label=one.label, created_at=at))
            elif owner != one.user:
                raise Taken(f"a token for {one.user!r} is one of {owner!r}")
        if added:
            after = {"tokens": [{"id": token.id, **told(token)} for token in added]}
            revision = await audit.append(connection, actor, "token.import", "tokens", after=after)
            await connection.execute(tokens.insert(), [_values(token, revision) for token in added])
    return added


async def revoke_subject(people: People, actor: Actor, subject: str, *, issuer: str = "", reason: str = "") -> None:
    """Stop accepting tokens that were signed elsewhere for this subject."""
    await _set_subject(people, actor, subject, issuer, now(), reason)


async def restore_subject(people: People, actor: Actor, subject: str, *, issuer: str = "") -> None:
    """Accept a subject's tokens again. Unknown if they were not revoked."""
    if (issuer, subject) not in people.directory.stored.subjects:
        raise Unknown(f"the subject {subject!r} is not revoked")
    await _set_subject(people, actor, subject, issuer, None, "")


async def _set_subject(
    people: People, actor: Actor, subject: str, issuer: str, revoked_at: int | None, reason: str
) -> None:
    from aimux.storage.schema.people import revoked_subjects as table

    async with change(people) as connection:
        action = "subject.restore" if revoked_at is None else "subject.revoke"
        after = {"issuer": issuer, "reason": reason}
        revision = await audit.append(connection, actor, action, f"subject:{subject}", after=after)
        values = {"revoked_at": revoked_at, "reason": reason, "revision": revision}
        there = table.update().where(table.c.issuer == issuer, table.c.subject == subject)
        if not (await connection.execute(there.values(values))).rowcount:
            await connection.execute(table.insert().values(issuer=issuer, subject=subject, **values))


# --- what they share -------------------------------------------------------------------------------------------------


def _make(user: str, label: str, scopes: tuple[str, ...], at: int, ttl: float | None) -> Issued:
    if ttl is not None and ttl <= 0:
        raise Invalid("a token has to last for some time", remedy="give a ttl above 0, such as 30d")
    secret = make_token()
    expires_at = None if ttl is None else at + int(ttl * 1000)
    return Issued(
        Token(make_id("tok"), user, digest(secret), secret[:SHOWN], label, scopes, at, expires_at),
        secret,
    )


async def _check_user(connection: Connection, people: People, user: str) -> None:
    if user not in people.directory.configured.users:
        await users.known(connection, user)


async def _token(connection: Connection, people: People, name: str, owner: str | None) -> Token:
    """As the database has it. Unknown; Fixed if the same token is in the configuration."""
    from aimux.storage.schema.people import tokens

    row = (await connection.execute(tokens.select().where(tokens.c.id == name))).first()
    configured = people.directory.configured.hashes.values()
    fixed = next((token for token in configured if name == token.id or (row and row.sha256 == token.sha256)), None)
    if fixed is not None and owner in {None, fixed.user}:
        raise Fixed(f"the token {name} of {fixed.user!r} stands in the configuration", remedy="change it there")
    if row is None or owner not in {None, row.user}:
        raise Unknown(f"there is no token {name!r}", remedy="aimux tokens shows which there are")
    return rows.token(row)


async def _insert(connection: Connection, actor: Actor, action: str, token: Token) -> None:
    from aimux.storage.schema.people import tokens

    revision = await audit.append(connection, actor, action, f"token:{token.id}", after=told(token))
    await connection.execute(tokens.insert().values(_values(token, revision)))


def _values(token: Token, revision: int) -> dict[str, Any]:
    values = asdict(token) | {"revision": revision}
    del values["configured"]
    return values


async def _update(connection: Connection, actor: Actor, action: str, before: Token, after: Token) -> None:
    from aimux.storage.schema.people import tokens

    revision = await audit.append(
        connection, actor, action, f"token:{before.id}", before=told(before), after=told(after)
    )
    changed = {"expires_at": after.expires_at, "revoked_at": after.revoked_at, "revision": revision}
    await connection.execute(tokens.update().where(tokens.c.id == before.id).values(changed))
