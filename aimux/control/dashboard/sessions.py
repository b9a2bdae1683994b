"""Who is signed in with a browser. The browser has a secret, the database its digest and owner.

A session ends when its time is over, with the token that opened it, and with its user; the role is looked up anew each
time.
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from aimux.control.principal import ADMIN_KEY, Principal, Role
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

COOKIE = "__Host-aimux"
LIFETIME = 7 * 86400
"""Seconds."""
USED_AGAIN = 300
"""Seconds after which a session's last use is written again."""
MACHINE = ""
"""The user of a session that was opened with the machine's own key, or by a link made with it."""


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


class Sessions:
    """All of them."""

    def __init__(self, database: Database, directory: Callable[[], Directory], key: Callable[[], Key | None]) -> None:
        self._database = database
        self._directory = directory
        self._key = key

    async def open(self, user: str, token_id: str, address: str, agent: str) -> Session:
        """A new session with a fresh secret: signing in never takes over a secret that the browser brought."""
        from aimux.storage.schema.people import sessions

        session = Session(secrets.token_urlsafe(32), user, token_id)
        now = present()
        async with self._database.write("sessions") as connection:
            await connection.execute(sessions.delete().where(sessions.c.expires_at <= now))
            await connection.execute(
                sessions.insert().values(
                    sha256=digest(session.secret),
                    user=user,
                    token_id=token_id,
                    created_at=now,
                    used_at=now,
                    expires_at=now + LIFETIME * 1000,
                    address=address,
                    agent=agent[:200],
                )
            )
        return session

    async def find(self, request: web.Request, address: str) -> tuple[Session, Principal] | None:
        """The session that a request belongs to, and who that is now."""
        from aimux.storage.schema.people import sessions

        secret = request.cookies.get(COOKIE, "")
        if not secret:
            return None
        now, kept = present(), digest(secret)
        async with self._database.read() as connection:
            row = (await connection.execute(sessions.select().where(sessions.c.sha256 == kept))).one_or_none()
        if row is None or not now < row.expires_at <= now + LIFETIME * 1000 + CLOCKS_APART:
            return None
        session = Session(secret, row.user, row.token_id)
        principal = self.principal(session.user, session.token_id, address)
        if principal is None:
            return None
        if now - row.used_at >= USED_AGAIN * 1000:
            with contextlib.suppress(StorageError):  # if it can't be written, it can still be read, and that is enough
                async with self._database.write() as connection:
                    await connection.execute(
                        sessions.update().where(sessions.c.sha256 == kept).values(used_at=now, address=address)
                    )
        return session, principal

    def principal(self, user: str, token_id: str, address: str) -> Principal | None:
        """Who that is now; None: no longer anybody."""
        directory, key = self._directory(), self._key()
        token = directory.token(token_id)
        by_key = key is not None and token_id == key.id
        # A missing token was removed from the configuration, or ended long ago; a key was replaced.
        if token_id and not by_key and (token is None or token.state(present()) != "active"):
            return None
        if user == MACHINE:
            return Principal(ADMIN_KEY, Role.ADMIN, address, token_id=token_id)
        known = directory.users.get(user)
        if known is None or not known.enabled:
            return None
        expires_at = token.expires_at if token is not None else None
        return Principal(known.name, known.role, address, known, expires_at, token_id=token_id)

    async def close(self, session: Session) -> None:
        """Sign out."""
        from aimux.storage.schema.people import sessions

        async with self._database.write("sessions") as connection:
            await connection.execute(sessions.delete().where(sessions.c.sha256 == digest(session.secret)))


@dataclass(slots=True)
class Dashboard:
    """What the pages need besides the API."""

    sessions: Sessions
    database: Database
    watching: int = 0
    """Pages that are open and show live values."""
