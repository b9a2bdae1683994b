"""Folds past hours into conversations, days and months, and deletes requests that were kept long enough.

Both happen in small steps, each a transaction: a node that meets another one's step waits for it and finds it done.
Days and months are those of one time zone. In another one they are made anew, from hours, which are kept for ever.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from aimux.metering.calendar import DAY, HOUR
from aimux.metering.store import FOLDED, Statements

if TYPE_CHECKING:
    from sqlalchemy import Insert

    from aimux.metering.calendar import Calendar
    from aimux.storage import Database
    from aimux.storage.engine import Connection

log = logging.getLogger(__name__)

GRACE = 600_000
"""Milliseconds for which a past hour still waits for requests; later ones are added to what was folded."""
ZONE = "ledger.time_zone"
"""The row of `meta` that names the time zone of days and months."""
KEPT_SINCE = "ledger.kept_since"
"""The row of `meta` that says since when single requests are kept (milliseconds), if any were deleted."""
PERIODS = 31
"""Days, months or days of conversations that are folded in one step."""
STEP = 2_000
"""Requests that are deleted at a time: a few milliseconds, in which nobody else can write."""


def id_of(at: int) -> str:
    """A lower bound of the ids of requests from `at` on."""
    return f"req_{at:012x}"


async def fold(database: Database, calendar: Calendar, now: int) -> bool:
    """One step; False when there is nothing left to fold. Raises StorageError."""
    for name in FOLDED:
        async with database.write() as connection:
            latest = now - GRACE
            if name == "months":  # which are locked after the days, as batches do
                latest = min(latest, await _folded(connection, "days") or 0)
            start = await _folded(connection, name)
            if start is None:
                return False  # nothing was ever written
            if name == "days" and await _begun_anew(connection, calendar):
                return True
            at = start
            for _ in range(PERIODS):
                begin, end = _period(name, at, latest, calendar)
                if end > latest:
                    break
                await _sum_up(connection, name, begin, max(begin, at), end)
                at = await _next(connection, name, end, latest, calendar)
            if at != start:
                await _set(connection, name, at)
                return True
    return False


def _period(name: str, at: int, latest: int, calendar: Calendar) -> tuple[int, int]:
    """What is folded into one: a day, a month; for conversations all past hours, at most a day of them."""
    if name == "days":
        return calendar.day(at), calendar.day(at, 1)
    if name == "months":
        return calendar.month(at), calendar.month(at, 1)
    start = calendar.hour(at)
    return start, min(start + DAY, max(start + HOUR, calendar.hour(latest)))


async def prune(database: Database, calendar: Calendar, before: int) -> bool:
    """Delete some of the requests, conversations and samples of windows from before the moment `before`.

    False when none is left. What is not folded yet stays. Raises StorageError.
    """
    from sqlalchemy import delete, select

    from aimux.storage.schema import ledger
    from aimux.storage.schema.base import meta

    async with database.write() as connection:
        until = min(before, await _folded(connection, "conversations") or 0)
        table = ledger.requests
        ids = select(table.c.id).where(table.c.id < id_of(until)).order_by(table.c.id).limit(STEP)
        gone = (await connection.execute(delete(table).where(table.c.id.in_(ids)))).rowcount
        if gone:
            known = (await connection.execute(select(meta.c.value).where(meta.c.key == KEPT_SINCE))).scalar()
            await note(connection, KEPT_SINCE, str(max(until, int(known or 0))))
        await connection.execute(
            delete(ledger.usage_conversations).where(ledger.usage_conversations.c.start < calendar.hour(until))
        )
        await connection.execute(delete(ledger.account_windows).where(ledger.account_windows.c.at < before))
    return gone == STEP


async def _folded(connection: Connection, name: str) -> int | None:
    """Up to when it was folded; at first, the hour of the oldest sum. Locked until the end of the transaction."""
    from sqlalchemy import func, select

    from aimux.storage.schema.ledger import folded, usage_hours

    await connection.exec_driver_sql(Statements(connection).folded, [(one, 0) for one in FOLDED])
    found = await connection.execute(select(folded.c.until).where(folded.c.name == name).with_for_update())
    until: int | None = found.scalar_one()
    return until or (await connection.execute(select(func.min(usage_hours.c.start)))).scalar()


async def _begun_anew(connection: Connection, calendar: Calendar) -> bool:
    """Whether days and months are of another time zone than the calendar's. Some of them are deleted then, and nothing
    is folded before all are; until then hours answer."""
    from sqlalchemy import delete, func, select

    from aimux.storage.schema.base import meta
    from aimux.storage.schema.ledger import usage_days, usage_days_served, usage_months

    zone = str(calendar.zone)
    before = (await connection.execute(select(meta.c.value).where(meta.c.key == ZONE))).scalar()
    if before == zone:
        return False
    for name in ("days", "months"):
        await _set(connection, name, 0)
    oldest = (await connection.execute(select(func.min(usage_days.c.start)))).scalar()
    if oldest is not None:
        for table in (usage_days, usage_days_served):
            await connection.execute(delete(table).where(table.c.start < oldest + PERIODS * DAY))
        return True
    await connection.execute(delete(usage_months))
    await note(connection, ZONE, zone)
    if before is not None:
        log.warning(
            "days and months of the ledger are made anew for limits.time_zone %s: they were for %s; "
            "if this comes again and again, nodes of one database differ in it",
            zone,
            before,
        )
    return True


async def note(connection: Connection, key: str, value: str) -> None:
    """Set a row of `meta`."""
    from aimux.storage.schema.base import insert, meta

    noted = insert(connection.dialect, meta).values(key=key, value=value)
    await connection.execute(noted.on_conflict_do_update(index_elements=[meta.c.key], set_={"value": value}))


async def _set(connection: Connection, name: str, until: int) -> None:
    from sqlalchemy import update

    from aimux.storage.schema.ledger import folded

    await connection.execute(update(folded).where(folded.c.name == name).values(until=until))


async def _next(connection: Connection, name: str, end: int, latest: int, calendar: Calendar) -> int:
    """The start of the next period with a request in it: a quiet year is one step. `end` may lie within an hour that
    began at another minute: of another time zone, or before the clock moved by half an hour."""
    from sqlalchemy import func, select

    from aimux.storage.schema.ledger import usage_hours

    following = select(func.min(usage_hours.c.start)).where(usage_hours.c.start > end - HOUR)
    hour = (await connection.execute(following)).scalar()
    target = latest if hour is None else min(latest, hour)
    return max(end, _period(name, target, latest, calendar)[0])


async def _sum_up(connection: Connection, name: str, start: int, since: int, end: int) -> None:
    """Fold a period. `since`: where it begins, or up to when its first hour is folded already (hours may have begun at
    another minute)."""
    from sqlalchemy import BigInteger, literal, select

    from aimux.metering.columns import measures_of, of_requests
    from aimux.storage.schema import ledger
    from aimux.storage.schema.base import insert

    at: Any = literal(start, BigInteger)
    if name == "conversations":
        table, requests, keys = ledger.usage_conversations, ledger.requests, ledger.usage_keys
        at = requests.c.at - (requests.c.at - start) % HOUR  # as in a zone whose clock moves by half an hour
        found = (
            select(at, requests.c.conversation, keys.c.user, *of_requests())
            .join(keys, keys.c.id == requests.c.key)
            .where(requests.c.id >= id_of(since), requests.c.id < id_of(end), requests.c.conversation.is_not(None))
            .group_by(at, requests.c.conversation, keys.c.user)
        )
        columns = ["start", "conversation", "user"]
    else:
        table = ledger.usage_days if name == "days" else ledger.usage_months
        source = ledger.usage_hours if name == "days" else ledger.usage_days
        found = (
            select(source.c.key, at, *measures_of(source))
            .where(source.c.start >= start, source.c.start < end)
            .group_by(source.c.key)
        )
        columns = ["key", "start"]
    put = insert(connection.dialect, table).from_select([*columns, *ledger.MEASURES], found)
    # What came late may be there: of an hour that another time zone has cut otherwise.
    more = {name: table.c[name] + put.excluded[name] for name in ledger.MEASURES}
    await connection.execute(put.on_conflict_do_update(index_elements=[*table.primary_key], set_=more))
    if name == "days":
        await connection.execute(_served(start, end))


def _served(start: int, end: int) -> Insert:
    """A day of `usage_days_served`, which is folded with the day."""
    from sqlalchemy import BigInteger, literal, select

    from aimux.metering.columns import measures_of
    from aimux.storage.schema import ledger

    table, source, keys = ledger.usage_days_served, ledger.usage_hours, ledger.usage_keys
    at = literal(start, BigInteger)
    found = (
        select(at, keys.c.served, *measures_of(source))
        .join(keys, keys.c.id == source.c.key)
        .where(source.c.start >= start, source.c.start < end)
        .group_by(keys.c.served)
    )
    return table.insert().from_select(["start", "key", *ledger.MEASURES], found)
