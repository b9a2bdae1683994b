"""Background work on people: writes when tokens were last used, and deletes what was kept long enough."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, NamedTuple

from aimux.storage import StorageError
from aimux.storage.times import now

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aimux.people.people import People
    from aimux.storage import Database

log = logging.getLogger(__name__)

FLUSH_SECONDS = 60.0
DAY = 86_400.0
KEPT_DAYS = 90
"""How long a token is kept after its end, so that it is known to be revoked and not just unknown; and removed users."""
MINUTE = 60_000
STORED = "tok_"
KEPT = (STORED, "cfg_")
"""The prefix of the ids of tokens whose last use is kept; those signed elsewhere are not ours, and unlimited in
number."""


USED = "token_used."
"""What precedes a configured token's id in `meta`, as it has no row in `tokens`. The value is `AT ADDRESS`, AT with
thirteen digits until 2286: the later one is the greater text."""


class Use(NamedTuple):
    """`at`: milliseconds since 1970, to the minute. `address` "": this machine's own socket."""

    at: int
    address: str


class Uses:
    """When each token was last used: noted in memory with each request, written to the database once a minute."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._last: dict[str, tuple[float, str]] = {}
        self._written: dict[str, Use] = {}

    def note(self, token: str, at: float, address: str) -> None:
        """Note that a request with this token's id ("" for none) came at this time (unix seconds). Takes 0.2 µs."""
        if token.startswith(KEPT):
            self._last[token] = (at, address)

    def last(self) -> Mapping[str, Use]:
        """The last use of each token that was used here since the start, by id."""
        return {name: Use(int(at * 1000) // MINUTE * MINUTE, address) for name, (at, address) in self._last.items()}

    async def flush(self) -> None:
        """Write what is new. Raises StorageError; then it is written next time."""
        fresh = {name: use for name, use in self.last().items() if use != self._written.get(name)}
        if not fresh:
            return
        from sqlalchemy import bindparam, or_

        from aimux.storage.schema.base import insert, meta
        from aimux.storage.schema.people import tokens

        later = or_(tokens.c.used_at.is_(None), tokens.c.used_at <= bindparam("at"))
        update = tokens.update().where(tokens.c.id == bindparam("token"), later)
        update = update.values(used_at=bindparam("at"), used_from=bindparam("address"))
        async with self._database.write() as connection:
            if stored := [(name, use) for name, use in fresh.items() if name.startswith(STORED)]:
                rows = [{"token": name, "at": use.at, "address": use.address} for name, use in sorted(stored)]
                await connection.execute(update, rows)
            for name, use in sorted(fresh.items() - dict(stored).items()):
                noted = insert(connection.dialect, meta).values(key=USED + name, value=f"{use.at} {use.address}")
                value = noted.excluded.value
                await connection.execute(
                    noted.on_conflict_do_update(
                        index_elements=[meta.c.key], set_={"value": value}, where=meta.c.value <= value
                    )
                )
        self._written |= fresh

    async def close(self) -> None:
        """Write what is left, as far as that can be written now."""
        try:
            await self.flush()
        except StorageError as error:
            log.warning("when tokens were last used could not be written: %s", error)


async def prune(database: Database) -> None:
    """Delete what was kept long enough. Nodes that still have it in memory go on saying that it is revoked.

    Raises StorageError.
    """
    from sqlalchemy import or_

    from aimux.storage.schema.people import groups, tokens, users

    past = now() - int(KEPT_DAYS * DAY * 1000)
    async with database.write() as connection:
        await connection.execute(tokens.delete().where(or_(tokens.c.revoked_at < past, tokens.c.expires_at < past)))
        for table in (users, groups):
            await connection.execute(table.delete().where(table.c.removed_at < past))


async def upkeep(uses: Uses, people: People) -> None:
    """Run until cancelled; what is left to write then is `Uses.close`'s."""
    pruned = -DAY
    while True:
        await asyncio.sleep(FLUSH_SECONDS)
        try:
            await uses.flush()
            if people.directory.stored.revision and time.monotonic() - pruned >= DAY:
                pruned = time.monotonic()
                await prune(people.database)
        except StorageError as error:
            log.warning("when tokens were last used can't be written now: %s", error)
