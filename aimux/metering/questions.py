"""The statements that read the ledger. Importing this imports SQLAlchemy; `reports` does so at its first use."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Text, case, cast, func, literal, select, union_all

from aimux.metering.columns import failed, measures_of, of_requests
from aimux.metering.record import OWN_LOGIN
from aimux.metering.rollups import KEPT_SINCE, ZONE, id_of
from aimux.metering.rows import TOTAL
from aimux.metering.spans import FOREVER, Level, Piece
from aimux.storage.schema import ledger
from aimux.storage.schema.base import meta

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import ColumnElement, Select, Subquery, Table

    from aimux.metering.calendar import Calendar
    from aimux.metering.usage import By, Filter, Picked
    from aimux.storage.engine import Connection

KEYS = ledger.usage_keys
Named = tuple["By | None", "Sequence[str] | None"]
"""Names of users, models, …; None: all of them."""
NO_NAMES: Named = (None, None)
OF_ZONE = frozenset({"days", "months"})
SUMS: dict[Level, Table] = {
    "hours": ledger.usage_hours,
    "days": ledger.usage_days,
    "served": ledger.usage_days_served,
    "months": ledger.usage_months,
}


async def folded(connection: Connection, calendar: Calendar) -> tuple[dict[str, int], int]:
    """Up to when there are conversations, days and months, and since when single requests are kept.

    Days and months of another time zone than the calendar's are none: it was changed a moment ago, or another node has
    another one.
    """
    table, zone = ledger.folded, str(calendar.zone)
    noted = [select(meta.c.value).where(meta.c.key == key).scalar_subquery() for key in (ZONE, KEPT_SINCE)]
    rows = (await connection.execute(select(table.c.name, table.c.until, *noted))).all()
    found = {name: until for name, until, of, _ in rows if of == zone or name not in OF_ZONE}
    return found, int(rows[0][3] or 0) if rows else 0


def usage(by: By, pieces: Iterable[Piece], only: Filter) -> Select[Any]:
    """Name and measures of all pieces together."""
    return _by_name(by, _together(pieces, only))


def usage_of_models(by: By, pieces: Iterable[Piece], only: Filter) -> Select[Any]:
    """The same for each provider and model: name, provider, model and measures."""
    return _by_name(by, _together(pieces, only), KEYS.c.provider, KEYS.c.model)


def _together(pieces: Iterable[Piece], only: Filter) -> Subquery:
    """Key and measures of all pieces, a row for each key: so only these few have to be named and sorted."""
    every = union_all(*[_part(piece, only) for piece in pieces]).subquery("pieces")
    sums = [func.sum(every.c[name]).label(name) for name in ledger.MEASURES]
    return select(every.c.key, *sums).group_by(every.c.key).subquery("sums")


def ranked(by: By, pieces: Iterable[Piece], only: Filter) -> Select[Any]:
    """Names, the most expensive first."""
    sums = union_all(*[_part(piece, only, ("cost",)) for piece in pieces]).subquery("sums")
    name = cast(_column(by), Text)
    joined = sums.join(KEYS, KEYS.c.id == sums.c.key)
    return select(name).select_from(joined).group_by(name).order_by(func.sum(sums.c.cost).desc(), name)


def at_once(
    start: int, piece: Piece, only: Filter, by: By, names: Sequence[str] | None = None, *, models: bool = False
) -> Select[Any]:
    """Like `over_time`, for a piece that belongs to one point: summing by key first leaves few rows to name."""
    sums = _part(piece, only, named=(by, names)).subquery("sums")
    named = _by_name(by, sums, *((KEYS.c.provider, KEYS.c.model) if models else ())).subquery("named")
    return select(literal(start, BigInteger), *named.c)


def _by_name(by: By, sums: Subquery, *also: ColumnElement[Any]) -> Select[Any]:
    name = cast(_column(by), Text)
    joined = sums.join(KEYS, KEYS.c.id == sums.c.key)
    # Selected under names of their own: `by` may be `model`, too.
    shown = [column.label(f"also_{column.key}") for column in also]
    return select(name, *shown, *measures_of(sums)).select_from(joined).group_by(name, *also)


def over_time(
    piece: Piece,
    only: Filter,
    by: By | None,
    names: Sequence[str] | None,
    *,
    whole: bool,
    models: bool,
) -> Select[Any]:
    """Start, name ("" without `by`) and measures of a piece; `whole`: of everything, which has sums of its own.
    `names`: of these alone. `models`: provider and model stand behind the name."""
    keys = matching(only, (by, names))
    if by is not None and keys is None and piece.level in {"days", "months"}:
        # These tables are in the order of keys: reading them key by key takes SQLite half as long as using the index.
        keys = select(KEYS.c.id)
    name: Any = literal("") if by is None else cast(_column(by), Text)
    also = [KEYS.c.provider.label("also_provider"), KEYS.c.model.label("also_model")] if models else []
    table: Any
    if piece.level == "requests":  # less than an hour of them
        table, start, measures = ledger.requests, literal(piece.since, BigInteger), of_requests()
    else:
        table = SUMS[piece.level]
        start, measures = table.c.start, measures_of(table)
    statement: Select[Any] = select(start, name, *also, *measures).where(*between(piece))
    if by is not None:
        statement = statement.select_from(table.join(KEYS, KEYS.c.id == table.c.key))
    if keys is not None:
        statement = statement.where(table.c.key.in_(keys))
    elif piece.level != "requests":
        statement = statement.where(table.c.key == TOTAL if whole else table.c.key != TOTAL)
    groups = [*([] if piece.level == "requests" else [start]), *([] if by is None else [name]), *also]
    return statement.group_by(*groups) if groups else statement.having(func.count() > 0)


def requests(only: Filter, picked: Picked, limit: int) -> Select[Any]:
    """Single requests with their keys, the latest first."""
    columns = ledger.requests.c
    conditions = between(Piece("requests", *picked.span))
    if (keys := matching(only)) is not None:
        conditions.append(columns.key.in_(keys))
    if picked.before is not None:
        conditions.append(columns.id < picked.before)
    if picked.conversation is not None:
        conditions.append(columns.conversation == picked.conversation)
    if picked.status is not None:
        conditions.append(columns.status == picked.status)
    if picked.failed is not None:
        conditions.append(failed() if picked.failed else ~failed())
    return _with_keys().where(*conditions).order_by(columns.id.desc()).limit(limit)


def request(request_id: str) -> Select[Any]:
    """The request with this id: aimux's own, or the latest with this id of the client's or the vendor's."""
    columns = ledger.requests.c
    own = select(columns.id).where(columns.id == request_id)
    foreign = (
        select(columns.id).where(column == request_id).order_by(columns.at.desc()).limit(1)
        for column in (columns.request_id, columns.upstream_id)
    )
    return _with_keys().where(columns.id == func.coalesce(*[found.scalar_subquery() for found in (own, *foreign)]))


def replayed(provider: str, span: Piece, after: str, limit: int) -> Select[Any]:
    """A provider's requests that took something of its accounts, in the order of time, after an id."""
    columns = ledger.requests.c
    took = columns.output + columns.input > 0, KEYS.c.account != OWN_LOGIN
    return (
        select(columns.id, columns.at, columns.conversation, columns.cost, columns.duration, KEYS.c.user, KEYS.c.model)
        .join(KEYS, KEYS.c.id == columns.key)
        .where(KEYS.c.provider == provider, *took, columns.id > after, *between(span))
        .order_by(columns.id)
        .limit(limit)
    )


def _with_keys() -> Select[Any]:
    keys = [column for column in KEYS.c if column.name != "id"]
    return select(ledger.requests, *keys).join(KEYS, KEYS.c.id == ledger.requests.c.key)


def _part(
    piece: Piece, only: Filter, measured: Sequence[str] = ledger.MEASURES, named: Named = NO_NAMES
) -> Select[Any]:
    """Key and measures of a piece, a row each key."""
    keys = matching(only, named)
    table: Any
    if piece.level == "requests":
        table = ledger.requests
        sums = dict(zip(ledger.MEASURES, of_requests(), strict=True))
    else:
        table = SUMS[piece.level]
        sums = {name: func.sum(table.c[name]) for name in measured}
    labelled = [sums[name].label(name) for name in measured]
    statement = select(table.c.key.label("key"), *labelled).where(*between(piece)).group_by(table.c.key)
    if keys is not None:
        return statement.where(table.c.key.in_(keys))
    return statement if piece.level == "requests" else statement.where(table.c.key != TOTAL)


def between(piece: Piece) -> list[ColumnElement[bool]]:
    """The rows in a piece."""
    if piece.level == "requests":
        ids = ledger.requests.c.id
        return [ids >= id_of(piece.since), *([ids < id_of(piece.until)] if piece.until < FOREVER else [])]
    start = SUMS[piece.level].c.start
    return [start >= piece.since, *([start < piece.until] if piece.until < FOREVER else [])]


def matching(only: Filter, named: Named = NO_NAMES) -> Select[Any] | None:
    """Ids of the keys that pass a filter and have one of these names; None: all."""
    columns, conditions = KEYS.c, list[Any]()
    by, names = named
    if by is not None and names is not None:
        conditions.append(cast(_column(by), Text).in_(names))
    if only.group is not None:
        listed = cast(columns.groups, Text)  # not by LIKE, to which large and small letters are the same on SQLite
        conditions.append(
            func.replace(listed, json.dumps(only.group), "") != listed if only.group else listed == json.dumps(())
        )
    for name, value in (
        ("user", only.user),
        ("token", only.token),
        ("provider", only.provider),
        ("model", only.model),
        ("class", only.request_class),
        ("client", only.client),
    ):
        if value is not None:
            conditions.append(columns[name] == value)
    if only.account is not None:
        provider, _, account = only.account.partition("/")
        conditions += [columns.account == account, *([columns.provider == provider] if provider else [])]
    return select(columns.id).where(*conditions) if conditions else None


def _column(by: By) -> ColumnElement[Any]:
    columns = KEYS.c
    if by == "account":
        return case((columns.account == "", ""), else_=columns.provider + "/" + columns.account)
    column: ColumnElement[Any] = columns["groups" if by == "group" else by]
    return column
