"""Conversations, the most recently active first: from sums of past hours, and from single requests since then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, exists, func, or_, select, tuple_

from aimux.metering.columns import measures_of, of_requests
from aimux.metering.questions import between, matching
from aimux.metering.rows import add_to
from aimux.metering.spans import Piece, Span
from aimux.metering.usage import EVERYTHING, Filter, Item
from aimux.storage.schema.ledger import requests, usage_conversations, usage_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Select

    from aimux.metering.calendar import Calendar
    from aimux.storage.engine import Connection

Place = tuple[int, str, str]
"""The hour in which a conversation was last active, its name and its user: the order is by the first, backwards."""


async def listed(
    connection: Connection,
    calendar: Calendar,
    span: Span,
    only: Filter,
    folded: int,
    limit: int,
    after: Place | None,
) -> list[tuple[Place, Item]]:
    """At most `limit` of them after `after`."""
    if only._replace(user=None) != EVERYTHING:
        folded = 0  # sums only know the user
    since = calendar.hour(span.since)
    recent = await _recent(connection, calendar, Span(max(since, folded), span.until), only)
    places = sorted((place for place in recent.values() if _behind(place, after)), key=_order)[:limit]
    if len(places) < limit and since < min(folded, span.until):
        places += await _older(
            connection, Span(since, min(folded, span.until)), only, limit - len(places), after, recent
        )
    found: dict[tuple[str, str], list[int]] = {}
    for statement in _sums(Span(since, span.until), only, folded, [place[1:] for place in places]):
        for conversation, user, *sums in await connection.execute(statement):
            add_to(found, (conversation, user), sums)
    return [(place, Item(place[1], *found[place[1:]])) for place in places]


def _order(place: Place) -> tuple[int, str, str]:
    return (-place[0], *place[1:])


def _behind(place: Place, after: Place | None) -> bool:
    return after is None or _order(place) > _order(after)


async def _recent(connection: Connection, calendar: Calendar, span: Span, only: Filter) -> dict[tuple[str, str], Place]:
    """Those of single requests, by name and user."""
    if span.since >= span.until:
        return {}
    last = func.max(requests.c.at)
    statement = _of_requests(select(requests.c.conversation, usage_keys.c.user, last), span, only)
    rows = (await connection.execute(statement)).all()
    return {(name, user): (calendar.hour(at), name, user) for name, user, at in rows}


def _of_requests(statement: Select[Any], span: Span, only: Filter) -> Select[Any]:
    joined = requests.join(usage_keys, usage_keys.c.id == requests.c.key)
    statement = statement.select_from(joined).where(
        requests.c.conversation.is_not(None), *between(Piece("requests", *span))
    )
    if (keys := matching(only)) is not None:
        statement = statement.where(requests.c.key.in_(keys))
    return statement.group_by(requests.c.conversation, usage_keys.c.user)


async def _older(
    connection: Connection,
    span: Span,
    only: Filter,
    limit: int,
    after: Place | None,
    recent: dict[tuple[str, str], Place],
) -> list[Place]:
    """Those whose last hour in the span is one of the sums'. Uses an index, however long the span is."""
    one, later = usage_conversations.c, usage_conversations.alias("later").c
    goes_on = exists().where(
        later.conversation == one.conversation,
        later.user == one.user,
        later.start > one.start,
        later.start < span.until,
    )
    conditions: list[ColumnElement[bool]] = [one.start >= span.since, one.start < span.until, ~goes_on]
    if only.user is not None:
        conditions.append(one.user == only.user)
    if after is not None:
        start, name, user = after
        same_hour = or_(one.conversation > name, and_(one.conversation == name, one.user > user))
        conditions += [one.start <= start, or_(one.start < start, same_hour)]
    statement = (
        select(one.start, one.conversation, one.user)
        .where(*conditions)
        .order_by(one.start.desc(), one.conversation, one.user)
    )
    places: list[Place] = []
    for start, name, user in await connection.execute(statement.limit(limit + len(recent))):
        if (name, user) not in recent and len(places) < limit:
            places.append((start, name, user))
    return places


def _sums(span: Span, only: Filter, folded: int, names: Sequence[tuple[str, str]]) -> list[Select[Any]]:
    if not names:
        return []
    table, statements = usage_conversations, []
    if span.since < folded:
        statements.append(
            select(table.c.conversation, table.c.user, *measures_of(table))
            .where(
                tuple_(table.c.conversation, table.c.user).in_(names),
                table.c.start >= span.since,
                table.c.start < min(folded, span.until),
            )
            .group_by(table.c.conversation, table.c.user)
        )
    if span.until > folded:
        recent = Span(max(span.since, folded), span.until)
        statement = select(requests.c.conversation, usage_keys.c.user, *of_requests())
        statement = _of_requests(statement, recent, only)
        statements.append(statement.where(requests.c.conversation.in_([name for name, _ in names])))
    return statements
