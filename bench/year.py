"""A year of a team of 200, 20 million requests, made as the sums that they would have become: how long does each
question of `aimux usage` take? It prints the table of bench/README.md.

`python -m bench.year` for SQLite, `python -m bench.year postgresql://…` for an empty PostgreSQL.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from datetime import UTC
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from aimux.metering.calendar import DAY, HOUR, Calendar
from aimux.metering.reports import Reports
from aimux.metering.rollups import id_of
from aimux.metering.rows import TOTAL, Key
from aimux.metering.spans import Span
from aimux.metering.store import FOLDED, Statements, execute, values_of
from aimux.metering.usage import BY, Filter, Picked
from aimux.storage import Database
from aimux.storage.schema import ledger as schema

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

TEAM = 200
A_DAY = 20_000_000 // 365
AT = Calendar(UTC).day(1_795_694_400_000) + 11 * HOUR + 40 * 60_000
"""A Thursday, twenty to twelve: in the middle of the work."""
CHUNK = 20_000

rng = random.Random(1)


def keys(people: int) -> list[Key]:
    """What each member is counted under: four models at two accounts, a client, two classes."""
    found = []
    for number in range(people):
        groups = (f"group-{number % 12}",)
        for model in rng.sample(["opus", "sonnet", "haiku", "gpt", "gpt-mini"], 3):
            for account in rng.sample(["a", "b", "c"], 2):
                for kind in ("main", "subagent"):
                    found.append(
                        Key(f"u{number}", f"t{number}", groups, "claude", account, "/claude", model, kind, "cli")
                    )
    return found


def measures(requests: int) -> tuple[int, ...]:
    return (
        requests,
        1,
        0,
        0,
        requests * 900,
        requests * 500,
        requests * 9000,
        requests * 300,
        0,
        0,
        0,
        requests * 7,
        9,
    )


def chunks(rows: Iterator[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    while chunk := list(islice(rows, CHUNK)):
        yield chunk


async def year(database: Database, people: int = TEAM, a_day: int = A_DAY) -> Reports:
    """The sums, and the requests of some hours, of so many people who send so many requests a day."""
    calendar, team = Calendar(UTC), keys(people)
    numbers = [key.hash() for key in team]
    days = [calendar.day(AT, -back) for back in range(1, 366)]
    per_hour = max(1, a_day // 10)

    def hours() -> Iterator[tuple[Any, ...]]:
        for day in [*days, calendar.day(AT)]:
            for hour in range(8, 18):
                start = day + hour * HOUR
                if start > AT:
                    return
                busy = rng.sample(numbers, len(numbers) // 12)
                for number in busy:
                    yield (start, number, *measures(per_hour // len(busy) or 1))
                yield (start, TOTAL, *measures(per_hour))

    def folded(starts: list[int], part: int) -> Iterator[tuple[Any, ...]]:
        for start in starts:
            busy = rng.sample(numbers, max(1, len(numbers) // part))
            for number in (*busy, TOTAL):
                yield (number, start, *measures(100))

    def talks() -> Iterator[tuple[Any, ...]]:
        for day in days[:90]:
            for number in range(a_day // 20):
                yield (
                    day + (8 + number % 10) * HOUR,
                    f"talk-{day}-{number // 2}",
                    f"u{number % people}",
                    *measures(10),
                )

    def requests() -> Iterator[tuple[Any, ...]]:
        """Of the hours that are not folded, and of one that a span begins in."""
        for start in (AT - 2 * HOUR, AT - HOUR, AT - 7 * DAY, AT - 30 * DAY, AT - 89 * DAY):
            for number in range(per_hour):
                at = start + number * HOUR // per_hour
                tokens = (900, 500, 9000, 300, 0, 0, 0, 7)
                yield (
                    f"{id_of(at)}{number:012x}", rng.choice(numbers), at, "node", f"talk-{number % 500}", "POST", "/m",
                    200, "", 900, 300, 9, 9, *tokens, False, None, f"req_011{number:021x}", None,
                )  # fmt: skip

    async with database.write() as connection:
        sql = Statements(connection)
        served = {key.served() for key in team}
        await connection.exec_driver_sql(sql.keys, [values_of(key.hash(), key) for key in (*team, *served)])
        one = str(schema.requests.insert().compile(dialect=connection.dialect))
        for chunk in chunks(requests()):
            await connection.exec_driver_sql(one, chunk)
        each = ((day, key.hash(), *measures(100)) for day in days for key in served)
        months = sorted({calendar.month(day) for day in days} - {calendar.month(AT)})
        for table, rows in (
            (schema.usage_hours, hours()),
            (schema.usage_days, folded(days, 3)),
            (schema.usage_days_served, each),
            (schema.usage_months, folded(months, 1)),
            (schema.usage_conversations, talks()),
        ):
            for chunk in chunks(rows):
                await execute(connection, sql.add(table, chunk))
        until = {"conversations": calendar.hour(AT) - HOUR, "days": calendar.day(AT), "months": calendar.month(AT)}
        await connection.execute(schema.folded.insert(), [{"name": name, "until": until[name]} for name in FOLDED])
    async with database.write() as connection:
        await connection.exec_driver_sql("ANALYZE")
    return Reports(database, calendar, lambda: 90 * 86400.0)


QUESTIONS: list[tuple[str, int, Filter]] = [
    (f"by {by}, {days} days{', one user' if only.user else ''}", days, only)
    for by in BY
    for days in (7, 30, 365)
    for only in (Filter(), Filter(user="u3"))
    if not (by == "hour" and days == 365 and only.user)  # nobody looks at 3,650 hours of a person
]


async def ask(reports: Reports, question: str, span: Span, only: Filter) -> int:
    by: Any = question.split(",", maxsplit=1)[0].removeprefix("by ")
    if by == "conversation":
        found, _ = await reports.conversations(span, only, 100)
        return len(found)
    return len((await reports.usage(by, span, only)).items)


async def best_of_4(asked: Callable[[], Awaitable[Any]]) -> float:
    """Milliseconds."""
    best = float("inf")
    for _ in range(4):
        began = time.perf_counter()
        await asked()
        best = min(best, time.perf_counter() - began)
    return best * 1000


async def measure(reports: Reports) -> dict[str, float]:
    found = {}
    for question, days, only in QUESTIONS:
        span = Span(AT - days * DAY + 20 * 60_000)
        found[question] = await best_of_4(lambda q=question, s=span, o=only: ask(reports, q, s, o))  # type: ignore[misc]
    latest, failed = Picked(Span(AT - DAY)), Picked(Span(0), failed=True)
    found["the latest requests"] = await best_of_4(lambda: reports.requests(Filter(), latest, 100))
    found["failed requests"] = await best_of_4(lambda: reports.requests(Filter(), failed, 100))
    whole = Span(AT - 365 * DAY)
    found["a plot of a year by user and month"] = await best_of_4(
        lambda: reports.lines("user", whole, Filter(), "month", 10)
    )
    quarter = Span(AT - 90 * DAY)
    found["sums and a plot of 90 days by model and day"] = await best_of_4(
        lambda: reports.usage_over_time("model", quarter, Filter(), "day")
    )
    quarter = Span(AT - 100 * DAY)
    found["a plot of 100 days by user and day"] = await best_of_4(
        lambda: reports.lines("user", quarter, Filter(), "day", 10)
    )
    return found


async def main(url: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder, patch("aimux.metering.reports.now", lambda: AT):
        database = await Database.open(url, Path(folder))
        try:
            reports = await year(database)
            print("| question | ms |\n| --- | ---: |")
            for question, took in (await measure(reports)).items():
                print(f"| {question} | {took:.0f} |")
        finally:
            await database.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else None))
