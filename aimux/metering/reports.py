"""Reports from the ledger. The CLI, the API and the dashboard all ask here."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from operator import sub
from typing import TYPE_CHECKING, Any

from aimux.metering.rows import add_to
from aimux.metering.spans import FOREVER, Level, Piece, Span, pieces
from aimux.metering.usage import EVERYTHING, SERVED, Filter, Item, Lines, Points, Report
from aimux.storage.times import now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from sqlalchemy import Row, RowMapping

    from aimux.metering.calendar import Calendar
    from aimux.metering.conversations import Place
    from aimux.metering.usage import Bucket, By, Picked
    from aimux.storage import Database
    from aimux.storage.engine import Connection

CHUNK = 20_000
"""Requests that are read at a time for a replay."""


class Reports:
    """Questions to one database. All of them raise StorageError."""

    def __init__(self, database: Database, calendar: Calendar, keep: Callable[[], float]) -> None:
        """`keep`: for how many seconds requests are kept."""
        self._database = database
        self.calendar = calendar
        self._keep = keep

    async def usage(self, by: By, span: Span, only: Filter = EVERYTHING) -> Report:
        """Sums by name. Not by conversation: see `conversations`."""
        if by == "day" or by == "hour":
            found = await self._over_time(by, span, only, None)
            items = [Item(self.label(by, start), *sums) for (start, _), sums in sorted(found.items())]
            return Report(items, _sum(items))
        from aimux.metering import questions

        async with self._database.read() as connection:
            parts = await self._pieces(connection, span, "months", by, only)
            rows = (await connection.execute(questions.usage(by, parts, only))).all() if parts else []
        whole = [Item(*row) for row in rows]
        return _answer(_by_group(rows, only.group) if by == "group" else whole, whole)

    async def usage_of_models(
        self, by: By, span: Span, only: Filter = EVERYTHING
    ) -> tuple[Report, dict[tuple[str, str], Item]]:
        """The same as `usage`, and from the same state of the ledger each model's sum, by provider and model."""
        from aimux.metering import questions

        async with self._database.read() as connection:
            parts = await self._pieces(connection, span, "months", by, only)
            rows = (await connection.execute(questions.usage_of_models(by, parts, only))).all() if parts else []
        return _with_models(rows, by, only)

    async def usage_over_time(
        self, by: By, span: Span, only: Filter, bucket: Bucket
    ) -> tuple[Report, dict[tuple[str, str], Item], Points]:
        """The same as `usage_of_models`, and the points of all names, from one state of the ledger. For few names: with
        many, `lines` reads less. Not by group."""
        async with self._database.read() as connection:
            rows = await self._rows(connection, bucket, span, only, by, models=True)
        found: Points = {}
        for start, name, _, _, *sums in rows:
            add_to(found, (start, name), sums)
        return *_with_models([row[1:] for row in rows], by, only), found

    async def conversations(
        self, span: Span, only: Filter, limit: int, after: Place | None = None
    ) -> tuple[list[tuple[Place, Item]], Item]:
        """At most `limit` conversations after `after` that were active in the span, the most recently active first, and
        the sum of all requests. The span's first and last hours count whole."""
        from aimux.metering import questions
        from aimux.metering.conversations import listed

        async with self._database.read() as connection:
            folded, _ = await questions.folded(connection, self.calendar)
            until = folded.get("conversations", 0)
            found = await listed(connection, self.calendar, span, only, until, limit, after)
        return found, await self.total(span, only)

    async def total(self, span: Span, only: Filter = EVERYTHING) -> Item:
        """The sum of all requests. Without a filter it is read from one row for each hour, day or month."""
        found = await self._over_time("month", span, only, None)
        return _sum([Item("", *sums) for sums in found.values()])

    async def series(self, by: By | None, span: Span, only: Filter, bucket: Bucket) -> dict[tuple[int, str], Item]:
        """Sums by the start of each hour, day or month, and by name ("" without `by`)."""
        found = await self._over_time(bucket, span, only, by)
        return {(start, name): Item(name, *sums) for (start, name), sums in found.items()}

    async def lines(
        self, by: By | None, span: Span, only: Filter, bucket: Bucket, most: int, names: Sequence[str] | None = None
    ) -> Lines:
        """A plot's lines: at most this many names, and the rest. `names`: all names, in another order.

        If there are many names, find the most expensive first, and then only their points: 200 people's 365 days are
        73,000 points, of which nobody wants to see more than a few lines.
        """
        from aimux.metering import questions

        if by is None or by == "group":  # groups are few, and what they share can't be subtracted from the whole
            found = await self._over_time(bucket, span, only, by)
            return lines_of(found, _ranked(found) if names is None else names, most)
        async with self._database.read() as connection:
            pieces = await self._pieces(connection, span, "months", by, only)
            ranked = names
            if ranked is None:
                ranked = (
                    list((await connection.execute(questions.ranked(by, pieces, only))).scalars()) if pieces else []
                )
            those = tuple(ranked[:most]) if len(ranked) > most else None
            found = await self._points(connection, bucket, span, only, by, those)
            shown = _by_name(found, ranked[:most])
            if len(ranked) <= most:
                return Lines(shown, {})
            whole = await self._points(connection, bucket, span, only, None)
        rest = {start: [*sums] for (start, _), sums in whole.items()}
        for (start, _), sums in found.items():
            rest[start] = list(map(sub, rest[start], sums))
        return Lines(shown, {start: Item("", *sums) for start, sums in rest.items() if any(sums)})

    async def requests(self, only: Filter, picked: Picked, limit: int) -> list[RowMapping]:
        """Single requests as they are kept, with their keys, the latest first."""
        from aimux.metering import questions

        async with self._database.read() as connection:
            return list((await connection.execute(questions.requests(only, picked, limit))).mappings())

    async def request(self, request_id: str) -> RowMapping | None:
        """The latest request with this id: aimux's own, the client's, or the vendor's."""
        from aimux.metering import questions

        async with self._database.read() as connection:
            row: RowMapping | None = (await connection.execute(questions.request(request_id))).mappings().first()
            return row

    async def replayed(self, provider: str, span: Span) -> AsyncIterator[Row[Any]]:
        """A provider's requests that took something of its accounts, in the order of time: id, at, conversation, cost,
        duration, user, model."""
        from aimux.metering import questions

        after = ""
        while True:
            async with self._database.read() as connection:
                statement = questions.replayed(provider, Piece("requests", *span), after, CHUNK)
                rows = (await connection.execute(statement)).all()
            for row in rows:
                yield row
            if len(rows) < CHUNK:
                return
            after = rows[-1].id

    def label(self, bucket: Bucket, start: int) -> str:
        """The label of an hour, day or month."""
        if bucket == "hour":
            return datetime.fromtimestamp(start / 1000, UTC).isoformat().replace("+00:00", "Z")
        date = self.calendar.date(start)
        return date if bucket == "day" else date[:7]

    async def _pieces(
        self, connection: Connection, span: Span, coarsest: Level, by: By | None, only: Filter
    ) -> list[Piece]:
        from aimux.metering import questions

        at = now()
        if span.until > at:
            span = span._replace(until=FOREVER)
        folded, kept_since = await questions.folded(connection, self.calendar)
        kept_since = max(kept_since, at - int(self._keep() * 1000))
        impersonal = _impersonal(by, only)
        if impersonal and coarsest == "months":
            coarsest = "days"  # these are fewer rows, of everybody together, than each one's months
        found = pieces(span, folded, self.calendar, kept_since=kept_since, coarsest=coarsest)
        return [piece._replace(level="served") if impersonal and piece.level == "days" else piece for piece in found]

    async def _over_time(self, bucket: Bucket, span: Span, only: Filter, by: By | None) -> Points:
        async with self._database.read() as connection:
            return await self._points(connection, bucket, span, only, by)

    async def _points(
        self,
        connection: Connection,
        bucket: Bucket,
        span: Span,
        only: Filter,
        by: By | None,
        names: tuple[str, ...] | None = None,
    ) -> Points:
        """Sums by start and name; of these `names` alone."""
        found: Points = {}
        for start, name, *sums in await self._rows(connection, bucket, span, only, by, names):
            for one in _groups(name) if by == "group" else [name]:
                add_to(found, (start, one), sums)
        return found

    async def _rows(
        self,
        connection: Connection,
        bucket: Bucket,
        span: Span,
        only: Filter,
        by: By | None,
        names: tuple[str, ...] | None = None,
        *,
        models: bool = False,
    ) -> list[Sequence[Any]]:
        """Start, name and sums, with a point in several rows; with `models`, provider and model follow the name."""
        from sqlalchemy import union_all

        from aimux.metering import questions

        calendar = self.calendar
        levels: dict[Bucket, tuple[Level, Callable[[int], int]]] = {
            "hour": ("hours", calendar.hour),
            "day": ("days", calendar.day),
            "month": ("months", calendar.month),
        }
        coarsest, start_of = levels[bucket]
        statements = []
        whole = by is None and only == EVERYTHING
        for piece in await self._pieces(connection, span, coarsest, by, only):
            first = start_of(piece.since)
            if by is not None and piece.until < FOREVER and first == start_of(piece.until - 1):
                statements.append(questions.at_once(first, piece, only, by, names, models=models))
            else:
                statements.append(questions.over_time(piece, only, by, names, whole=whole, models=models))
        if not statements:
            return []
        rows = (await connection.execute(union_all(*statements))).all()
        starts = {start: start_of(start) for start in {row[0] for row in rows}}
        return [(starts[start], *row) for start, *row in rows]


def _impersonal(by: By | None, only: Filter) -> bool:
    """Whether sums of everybody together can answer, though not the one sum of everything."""
    return (by in SERVED or (by is None and only != EVERYTHING)) and (only.user, only.group, only.token) == 3 * (None,)


def _ranked(found: Points) -> list[str]:
    """The names by cost."""
    costs: dict[str, int] = {}
    for (_, name), sums in found.items():
        costs[name] = costs.get(name, 0) + Item(name, *sums).cost
    return sorted(costs, key=lambda name: (-costs[name], name))


def lines_of(points: Points, names: Sequence[str], most: int) -> Lines:
    """The first of these names, and all others together."""
    named = _by_name(points, names)
    shown, others = dict(list(named.items())[:most]), list(named.values())[most:]
    return Lines(shown, _added(others))


def _by_name(found: Points, names: Sequence[str]) -> dict[str, dict[int, Item]]:
    named: dict[str, dict[int, Item]] = {name: {} for name in names}
    for (start, name), sums in found.items():
        named[name][start] = Item(name, *sums)
    return named


def _added(lines: Iterable[dict[int, Item]]) -> dict[int, Item]:
    found: dict[int, list[int]] = {}
    for points in lines:
        for start, item in points.items():
            add_to(found, start, item[1:])
    return {start: Item("", *sums) for start, sums in found.items()}


def _with_models(rows: Iterable[Sequence[Any]], by: By, only: Filter) -> tuple[Report, dict[tuple[str, str], Item]]:
    """From rows of name, provider, model and sums."""
    names: dict[str, list[int]] = {}
    models: dict[tuple[str, str], list[int]] = {}
    for name, provider, model, *sums in rows:
        add_to(names, name, sums)
        add_to(models, (provider, model), sums)
    whole = [Item(name, *sums) for name, sums in names.items()]
    items = _by_group(whole, only.group) if by == "group" else whole
    return _answer(items, whole), {key: Item(key[1], *sums) for key, sums in models.items()}


def _answer(items: Iterable[Item], whole: Sequence[Item]) -> Report:
    return Report(
        sorted(items, key=lambda item: (-item.cost, -item.tokens, -item.requests, item.name)),
        _sum(whole),
    )


def _by_group(rows: Iterable[Any], wanted: str | None) -> list[Item]:
    """A request of somebody in two groups counts in both, of somebody in none under ""."""
    found: dict[str, list[int]] = {}
    for groups, *sums in rows:
        for group in _groups(groups):
            if wanted is None or group == wanted:
                add_to(found, group, sums)
    return [Item(name, *sums) for name, sums in found.items()]


def _groups(text: str) -> list[str]:
    return json.loads(text) or [""]


def _sum(items: Sequence[Item]) -> Item:
    return Item("", *map(sum, zip(*[item[1:] for item in items], strict=True))) if items else Item("")
