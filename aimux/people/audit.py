"""Who changed what: entries that are only ever added, each with the hash of the one before it.

An entry is written in the transaction of the change itself: there is none without the other. Its id orders all changes
of the installation, whichever node made them.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from aimux.storage import StorageError
from aimux.storage.times import now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from aimux.storage import Database
    from aimux.storage.engine import Connection

log = logging.getLogger(__name__)

FIRST = bytes(32)
"""The hash before the first entry."""
HEAD = "audit_head"
"""The row of `meta` that holds id and hash of the last entry: it is the lock for the next, and shows if the end of the
log was cut off."""
BATCH = 1000


class Actor(NamedTuple):
    """Who makes a change, and from where ("" for this machine's command line)."""

    name: str
    address: str = ""


class Picked(NamedTuple):
    """Which entries: from `since` to before `until` (milliseconds), by this actor, to this target; None: whichever."""

    since: int
    until: int
    actor: str | None = None
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One change. `at`: milliseconds since 1970. `before` and `after` hold no secret; None: there was or is nothing."""

    id: int
    at: int
    actor: str
    address: str
    action: str
    target: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    previous: bytes
    hash: bytes

    def sealed(self) -> bytes:
        """What `hash` has to be."""
        told = [self.id, self.at, self.actor, self.address, self.action, self.target, self.before, self.after]
        text = json.dumps([self.previous.hex(), *told], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return sha256(text.encode()).digest()


async def append(
    connection: Connection,
    actor: Actor,
    action: str,
    target: str,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> int:
    """Add an entry in the connection's transaction; returns its id. From here to the commit all other changes wait."""
    from aimux.storage.schema.audit import audit
    from aimux.storage.schema.base import meta

    last, previous = await lock(connection)
    unsealed = Entry(last + 1, now(), actor.name, actor.address, action, target, before, after, previous, b"")
    seal = unsealed.sealed()
    await connection.execute(
        audit.insert().values(
            id=unsealed.id,
            at=unsealed.at,
            actor=actor.name,
            address=actor.address,
            action=action,
            target=target,
            before=before,
            after=after,
            previous=previous,
            hash=seal,
        )
    )
    await connection.execute(meta.update().where(meta.c.key == HEAD).values(value=f"{unsealed.id} {seal.hex()}"))
    return unsealed.id


async def note(
    database: Database,
    actor: Actor,
    action: str,
    target: str,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """An entry for a change outside the database. The change holds even if the entry can't be written."""
    try:
        async with database.write() as connection:
            await append(connection, actor, action, target, before=before, after=after)
    except StorageError as error:
        log.error("%s of %s by %s is not in the audit log: %s", action, target, actor.name, error)


async def lock(connection: Connection) -> tuple[int, bytes]:
    """Make every other change wait until this transaction ends; returns id and hash of the last entry."""
    from sqlalchemy import text

    from aimux.storage.schema.base import meta

    head = meta.select().where(meta.c.key == HEAD).with_only_columns(meta.c.value).with_for_update()
    value = (await connection.execute(head)).scalar_one_or_none()
    if value is None:
        insert = "INSERT INTO meta (key, value) VALUES (:key, :value) ON CONFLICT (key) DO NOTHING"
        await connection.execute(text(insert), {"key": HEAD, "value": f"0 {FIRST.hex()}"})
        value = (await connection.execute(head)).scalar_one()
    number, _, seal = value.partition(" ")
    return int(number), bytes.fromhex(seal)


class Verdict(NamedTuple):
    """The result of checking the whole log. `broken` "": it is whole."""

    entries: int
    hash: bytes
    """The hash of the last entry: somebody who notes it can tell later whether anything before it was changed."""
    broken: str = ""


async def verify(database: Database) -> Verdict:
    """Check the chain from its first entry to its last. Raises StorageError."""
    from aimux.storage.schema.base import meta

    async with database.read() as connection:  # first: entries may be added meanwhile
        head = (await connection.execute(meta.select().where(meta.c.key == HEAD))).first()
    number, seal = 0, FIRST
    async for entry in entries(database):
        if entry.id != number + 1:
            return Verdict(number, seal, f"entry {number + 1} is missing")
        if entry.previous != seal:
            return Verdict(number, seal, f"entry {entry.id} does not follow entry {number}: one of them was changed")
        if entry.sealed() != entry.hash:
            return Verdict(number, seal, f"entry {entry.id} was changed")
        number, seal = entry.id, entry.hash
    last = int(head.value.partition(" ")[0]) if head is not None else 0
    if last > number:
        return Verdict(number, seal, f"the last {last - number} entries are missing")
    return Verdict(number, seal)


async def entries(database: Database) -> AsyncIterator[Entry]:
    """All entries, oldest first. Raises StorageError."""
    after = 0
    while True:
        found = await page(database, limit=BATCH, after=after)
        for entry in found:
            yield entry
        if len(found) < BATCH:
            return
        after = found[-1].id


async def of_action(database: Database, action: str) -> list[Entry]:
    """All entries of this action, oldest first. Raises StorageError."""
    from aimux.storage.schema.audit import audit

    async with database.read() as connection:
        found = await connection.execute(audit.select().where(audit.c.action == action).order_by(audit.c.id))
        rows = found.mappings().all()
    return [Entry(**row) for row in rows]


async def page(
    database: Database, *, limit: int, after: int | None = None, before: int | None = None, only: Picked | None = None
) -> list[Entry]:
    """At most `limit` entries: oldest first after the id `after`, or else newest first, before `before`."""
    from aimux.storage.schema.audit import audit

    query = audit.select().limit(limit)
    query = query.order_by(audit.c.id) if after is not None else query.order_by(audit.c.id.desc())
    if after is not None:
        query = query.where(audit.c.id > after)
    if before is not None:
        query = query.where(audit.c.id < before)
    if only is not None:
        query = query.where(audit.c.at >= only.since, audit.c.at < only.until)
        for column, wanted in ((audit.c.actor, only.actor), (audit.c.target, only.target)):
            if wanted is not None:
                query = query.where(column == wanted)
    async with database.read() as connection:
        rows = (await connection.execute(query)).mappings().all()
    return [Entry(**row) for row in rows]
