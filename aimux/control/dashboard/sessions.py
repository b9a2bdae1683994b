"""Who is signed in with a browser. The browser has a secret, the database its digest and owner.

A session ends when its time is over, with the token that opened it, and with its user; the role is looked up anew each
time, and whether an admin who asked for somebody else's link still is one. While the database is away, a node goes by
what it remembers.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING

from aimux.control.api.parts import patience
from aimux.control.principal import ADMIN_KEY, Principal, Role
from aimux.gateway.headers import from_stand_in
from aimux.people.tokens import digest
from aimux.storage import StorageError
from aimux.storage.times import CLOCKS_APART
from aimux.storage.times import now as present

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from aimux.control.key import Key
    from aimux.people import Directory
    from aimux.storage import Database

COOKIE = "aimux"
LIFETIME = 7 * 86400
"""Seconds."""
USED_AGAIN = 300
"""Seconds after which a session's last use is written again."""
MOST_REMEMBERED = 1000
"""Sessions for which a node needs no database: those that were used last."""
MACHINE = ""
"""The user of a session that was opened with the machine's own key, or by a link made with it."""


def is_local(request: web.Request) -> bool:
    """Whether the address that the browser asks is its own machine's: aimux's, or a tunnel's that ends there."""
    # Without a Host header aiohttp would ask DNS for our name.
    host = (request.headers.get("host") and request.url.host) or ""
    return host in {"localhost", "127.0.0.1", "::1"} or host.endswith(".localhost")


def keep(request: web.Request, answer: web.Response, name: str, value: str, seconds: int) -> None:
    """Have the browser keep a cookie for this site alone; one of no seconds is forgotten."""
    secure = not _in_the_open(request)
    answer.set_cookie(
        _named(request, name), value, path="/", max_age=seconds, secure=secure, httponly=True, samesite="Strict"
    )


def _in_the_open(request: web.Request) -> bool:
    """Whether it comes by plain HTTP from this machine, from where Safari keeps no `Secure` cookie, as others do.

    What stands in between may have been asked by HTTPS, whatever `Host` it sends.
    """
    return request.scheme != "https" and not from_stand_in(request.headers) and is_local(request)


def _named(request: web.Request, name: str) -> str:
    return name if _in_the_open(request) else f"__Host-{name}"


def cookie(request: web.Request, name: str) -> str:
    """A cookie's value; "" where there is none. `request.cookies` reads each of the thousands that fit into a head.

    Nothing but blanks is taken off: browsers guard `__Host-` at a name's very beginning, and with a space of Unicode
    before it a page of a sibling domain may set one.
    """
    name = _named(request, name)
    for one in ";".join(request.headers.getall("cookie", ())).split(";"):
        found, _, value = one.partition("=")
        if found.strip(" \t") == name:
            return value.strip(" \t").strip('"')
    return ""


@dataclass(frozen=True, slots=True)
class Session:
    """One browser's session. `secret` is its cookie."""

    secret: str
    user: str
    token_id: str

    def __repr__(self) -> str:
        return f"Session({self.user!r})"

    @property
    def csrf(self) -> str:
        """What every form carries: another site can neither read nor guess it."""
        return hmac.new(self.secret.encode(), b"csrf", sha256).hexdigest()

    def carries(self, given: str) -> bool:
        return hmac.compare_digest(self.csrf.encode(), given.encode("utf-8", "replace"))


@dataclass(frozen=True, slots=True)
class Row:
    """A session as the database has it, or will: one that is not `written` was opened while it took nothing."""

    sha256: bytes = field(repr=False)
    user: str
    token_id: str
    created_at: int
    used_at: int
    expires_at: int
    address: str
    agent: str
    written: bool = True


class Sessions:
    """All of them."""

    def __init__(self, database: Database, directory: Callable[[], Directory], key: Callable[[], Key | None]) -> None:
        self._database = database
        self._directory = directory
        self._key = key
        self._remembered: dict[bytes, Row] = {}

    async def open(self, user: str, token_id: str, address: str, agent: str) -> Session:
        """A new session with a fresh secret: signing in never takes over a secret that the browser brought.

        Where the database can't be written it is only remembered, by this node, until it can.
        """
        session = Session(secrets.token_urlsafe(32), user, token_id)
        now = present()
        row = Row(
            digest(session.secret), user, token_id, now, now, now + LIFETIME * 1000, address, agent[:200], written=False
        )
        self._remember(await self._written(row))
        return session

    async def find(self, request: web.Request, address: str) -> tuple[Session, Principal] | None:
        """The session that a request belongs to, and who that is now. StorageError where only the database can tell."""
        secret = cookie(request, COOKIE)
        if not secret:
            return None
        now, row = present(), await self._look(digest(secret))
        if row is None or not now < row.expires_at <= now + LIFETIME * 1000 + CLOCKS_APART:
            return None
        session = Session(secret, row.user, row.token_id)
        principal = self.principal(session.user, session.token_id, address)
        if principal is None:
            return None
        if row.written and now - row.used_at >= USED_AGAIN * 1000 and self._database.trouble is None:
            await self._used(replace(row, used_at=now, address=address))
        return session, principal

    async def _look(self, sha256: bytes) -> Row | None:
        """What the database says; what is remembered, where it is away."""
        from aimux.storage.schema.people import sessions

        remembered = self._remembered.get(sha256)
        try:
            async with self._patience(remembered), self._database.read() as connection:
                query = sessions.select().where(sessions.c.sha256 == sha256)
                found = (await connection.execute(query)).mappings().one_or_none()
        except (StorageError, TimeoutError):
            if remembered is None:
                raise
            return remembered
        if found is not None:
            row = Row(**found)
        elif remembered is None or remembered.written:
            self._remembered.pop(sha256, None)
            return None
        else:
            row = await self._written(remembered)
        self._remember(row)
        return row

    async def _written(self, row: Row) -> Row:
        """The same, written down if the database takes it."""
        from aimux.storage.schema.people import sessions

        values = {column.name: getattr(row, column.name) for column in sessions.c}
        with contextlib.suppress(StorageError, TimeoutError):
            async with self._patience(row), self._database.write() as connection:
                await connection.execute(sessions.delete().where(sessions.c.expires_at <= row.created_at))
                await connection.execute(sessions.insert().values(values))
            return replace(row, written=True)
        return row

    async def _used(self, row: Row) -> None:
        from aimux.storage.schema.people import sessions

        values = {"used_at": row.used_at, "address": row.address}
        # If it can't be written, it can still be read, and that is enough.
        with contextlib.suppress(StorageError, TimeoutError):
            async with self._patience(row), self._database.write() as connection:
                await connection.execute(sessions.update().where(sessions.c.sha256 == row.sha256).values(values))
            self._remember(row)

    def _patience(self, remembered: Row | None) -> asyncio.Timeout:
        """How long to wait for the database: as long as it takes, if it is needed."""
        return asyncio.timeout(None) if remembered is None else patience(self._database)

    def _remember(self, row: Row) -> None:
        self._remembered.pop(row.sha256, None)
        self._remembered[row.sha256] = row
        if len(self._remembered) > MOST_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]

    def principal(self, user: str, token_id: str, address: str) -> Principal | None:
        """Who that is now; None: no longer anybody."""
        directory, key = self._directory(), self._key()
        token = directory.token(token_id)
        by_key = key is not None and token_id == key.id
        # A missing token was removed from the configuration, or ended long ago; a key was replaced.
        if token_id and not by_key and (token is None or token.state(present()) != "active"):
            return None
        if token is not None and token.user != user:  # an admin had asked for the link
            asked = directory.users.get(token.user)
            if asked is None or not (asked.enabled and asked.role.includes(Role.ADMIN)):
                return None
        if user == MACHINE:
            return Principal(ADMIN_KEY, Role.ADMIN, address, token_id=token_id)
        known = directory.users.get(user)
        if known is None or not known.enabled:
            return None
        expires_at = token.expires_at if token is not None else None
        return Principal(known.name, known.role, address, known, expires_at, token_id=token_id)

    async def close(self, session: Session) -> None:
        """Sign out. StorageError if the database can't be told, which would have the session again when it is back."""
        from aimux.storage.schema.people import sessions

        sha256 = digest(session.secret)
        row = self._remembered.get(sha256)
        if row is None or row.written:
            async with self._database.write() as connection:
                await connection.execute(sessions.delete().where(sessions.c.sha256 == sha256))
        self._remembered.pop(sha256, None)


@dataclass(slots=True)
class Dashboard:
    """What the pages need besides the API."""

    sessions: Sessions
    database: Database
    watching: int = 0
    """Pages that are open and show live values."""
