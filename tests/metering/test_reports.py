"""What is read out of the ledger is what was put in, whichever sums it comes from."""

from __future__ import annotations

import random
from datetime import UTC
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from aimux.metering.calendar import Calendar
from aimux.metering.ledger import Ledger
from aimux.metering.record import RequestRecord, Step
from aimux.metering.reports import Reports
from aimux.metering.spans import FOREVER, Span
from aimux.metering.usage import By, Filter, Item
from aimux.storage import Database
from aimux.storage.schema.ledger import requests

from .by_hand import ALL, AT, by_hand, ledger_of, names_of, passes, some, summed
from .conftest import Make
from .support import DAY, HOUR, NOON, record, settled


@pytest.fixture(params=["Asia/Kolkata"])
def calendar(request: pytest.FixtureRequest) -> Calendar:
    """Where hours begin at half past."""
    return Calendar(ZoneInfo(request.param))


@pytest.mark.parametrize("calendar", ["Asia/Kolkata", "America/New_York"], indirect=True)  # 25 hours on November 1
async def test_every_question_is_answered_as_by_hand(
    database: Database, calendar: Calendar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aimux.metering.reports.now", lambda: AT)
    rng = random.Random(7)
    records, ledger = some(rng, 250, 80), ledger_of(database, calendar, tmp_path / "l")
    # In several rounds, folded in between: most of what comes later is late.
    for number in range(3):
        for one in records[number::3]:
            ledger.record(one)
        await settled(ledger)
        await ledger.upkeep(AT - int((2 - number) * 20 * DAY * 1000))
    reports = Reports(database, calendar, lambda: 1e9)
    filters = [
        Filter(),
        Filter(user="bob"),
        Filter(group="team", model="opus"),
        Filter(group="ops"),
        Filter(group="te_m"),
        Filter(group=""),
        Filter(account="lab/two", request_class=""),
        Filter(account=""),
        Filter(user="nobody"),
    ]
    bys: list[By] = ["user", "group", "token", "model", "account", "provider", "class", "client", "day"]
    for _ in range(25):
        since = AT - int(rng.random() ** 3 * 110 * DAY * 1000)
        until = rng.choice([FOREVER, AT, since + int(rng.random() * (AT - since)), since + rng.randrange(4_000_000)])
        by, only, span = rng.choice(bys), rng.choice(filters), Span(since, until)
        answer = await reports.usage(by, span, only)
        expected = by_hand(records, by, span, only, calendar)
        assert {item.name: item for item in answer.items} == expected, (by, span, only)
        assert answer.total == summed(one for one in records if passes(one, span, only))
    assert [item.name for item in (await reports.usage("day", ALL)).items] == sorted(
        {calendar.date(int(one.time * 1000)) for one in records}
    )
    hours = await reports.usage("hour", Span(AT - int(2 * DAY * 1000)))
    assert hours.total == summed(one for one in records if one.time >= NOON - 2 * DAY)
    assert all(item.requests for item in hours.items)
    costs = [item.cost for item in (await reports.usage("user", ALL)).items]
    assert costs == sorted(costs, reverse=True)
    await ledger.close()


async def test_a_series_is_the_same_in_time(
    database: Database, calendar: Calendar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aimux.metering.reports.now", lambda: AT)
    records, ledger = some(random.Random(8), 120, 70), ledger_of(database, calendar, tmp_path / "l")
    for one in records:
        ledger.record(one)
    await settled(ledger)
    await ledger.upkeep(AT)
    reports = Reports(database, calendar, lambda: 1e9)
    for bucket, start in (("hour", calendar.hour), ("day", calendar.day), ("month", calendar.month)):
        for by, only in ((None, Filter()), ("user", Filter()), ("model", Filter(group="ops"))):
            found = await reports.series(by, ALL, only, bucket)  # type: ignore[arg-type]
            places: dict[tuple[int, str], list[RequestRecord]] = {}
            for one in records:
                if passes(one, ALL, only):
                    name = names_of(one, by, calendar)[0] if by else ""  # type: ignore[arg-type]
                    places.setdefault((start(int(one.time * 1000)), name), []).append(one)
            assert found == {where: summed(those, where[1]) for where, those in places.items()}, (bucket, by)
    await ledger.close()


async def filled(database: Database, calendar: Calendar, folder: Path) -> tuple[Ledger, Reports]:
    """Seventy days of requests, folded."""
    ledger = ledger_of(database, calendar, folder / "l")
    for one in some(random.Random(8), 120, 70):
        ledger.record(one)
    await settled(ledger)
    await ledger.upkeep(AT)
    return ledger, Reports(database, calendar, lambda: 1e9)


async def test_a_plot_has_the_costliest_lines_and_what_is_left(
    database: Database, calendar: Calendar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aimux.metering.reports.now", lambda: AT)
    ledger, reports = await filled(database, calendar, tmp_path)
    asked: list[tuple[Any, Filter, int]] = [
        ("user", Filter(), 2),
        ("user", Filter(group="ops"), 1),
        ("account", Filter(), 1),
        ("group", Filter(), 1),
        ("model", Filter(user="ann"), 9),
        (None, Filter(), 5),
        ("user", Filter(user="nobody"), 2),
    ]
    for bucket in ("day", "month"):
        for by, only, most in asked:
            span = Span(AT - int(50 * DAY * 1000))
            series: dict[str, dict[int, Item]] = {}
            for (start, name), item in (await reports.series(by, span, only, bucket)).items():
                series.setdefault(name, {})[start] = item
            order = sorted(series, key=lambda name: (-sum(item.cost for item in series[name].values()), name))
            named, rest = await reports.lines(by, span, only, bucket, most)
            assert list(named) == order[:most]
            assert named == {name: series[name] for name in order[:most]}
            left: dict[int, Item] = {}
            for name in order[most:]:
                for start, item in series[name].items():
                    left[start] = Item("", *map(sum, zip(left.get(start, Item(""))[1:], item[1:], strict=True)))
            assert rest == left
    await ledger.close()


async def test_one_look_finds_the_sums_of_models_and_the_points(
    database: Database, calendar: Calendar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aimux.metering.reports.now", lambda: AT)
    ledger, reports = await filled(database, calendar, tmp_path)
    asked: list[tuple[Any, Filter]] = [
        ("model", Filter()),
        ("account", Filter()),
        ("class", Filter(user="ann")),
        ("provider", Filter(user="nobody")),
    ]
    for bucket in ("hour", "day", "month"):
        for by, only in asked:
            for span in (ALL, Span(AT - int(50 * DAY * 1000))):
                answer, models, points = await reports.usage_over_time(by, span, only, bucket)
                assert (answer, models) == await reports.usage_of_models(by, span, only)
                found = {(start, name): Item(name, *sums) for (start, name), sums in points.items()}
                assert found == await reports.series(by, span, only, bucket)
    await ledger.close()


async def test_conversations_come_page_by_page_the_last_active_first(
    database: Database, calendar: Calendar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aimux.metering.reports.now", lambda: AT)
    records, ledger = some(random.Random(9), 200, 20), ledger_of(database, calendar, tmp_path / "l")
    for one in records:
        ledger.record(one)
    await settled(ledger)
    await ledger.upkeep(AT - int(3 * HOUR * 1000))
    reports = Reports(database, calendar, lambda: 1e9)
    whole_hour = calendar.hour(AT - int(9 * DAY * 1000))
    ended = {(one.conversation, one.user): one.time for one in sorted(records, key=lambda one: one.time)}
    oldest = min(time for (conversation, _), time in ended.items() if conversation)
    for only, span in (
        (Filter(), ALL),
        (Filter(), Span(whole_hour)),
        (Filter(), Span(calendar.hour(int(oldest * 1000)))),
        (Filter(user="bob"), ALL),
        (Filter(model="opus"), ALL),
        (Filter(), Span(0, whole_hour)),
    ):
        found: list[tuple[Any, Item]] = []
        after = None
        while True:
            page, total = await reports.conversations(span, only, 7, after)
            assert total == summed(one for one in records if passes(one, span, only))
            found += page
            assert len(page) <= 7
            if len(page) < 7:
                break
            after = page[-1][0]
        talks: dict[tuple[str, str], list[RequestRecord]] = {}
        for one in records:
            if one.conversation and passes(one, span, only):
                talks.setdefault((one.conversation, one.user), []).append(one)
        last = {where: max(calendar.hour(int(one.time * 1000)) for one in those) for where, those in talks.items()}
        assert [place for place, _ in found] == [
            (last[where], *where) for where in sorted(talks, key=lambda where: (-last[where], *where))
        ]
        for (_, name, user), item in found:
            assert item == summed(talks[name, user], name)
    await ledger.close()


async def test_what_single_requests_are_deleted_of_stays_in_the_sums(
    database: Database, calendar: Calendar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aimux.metering.reports.now", lambda: AT)
    monkeypatch.setattr("aimux.metering.rollups.STEP", 50)
    records = some(random.Random(10), 150, 50)
    ledger = ledger_of(database, calendar, tmp_path / "l")
    ledger.keep = 20 * DAY
    for one in records:
        ledger.record(one)
    await settled(ledger)
    await ledger.upkeep(AT)
    reports = Reports(database, calendar, lambda: 20 * DAY)
    since = AT - int(20 * DAY * 1000)
    kept = Filter(user="ann")
    assert (await reports.usage("user", ALL)).total == summed(records)
    odd = calendar.hour(AT - int(40.3 * DAY * 1000))
    assert (await reports.usage("user", Span(odd + 7), kept)).total == summed(
        one for one in records if passes(one, Span(odd), kept)
    ), "an hour that is gone counts whole"
    talks, _ = await reports.conversations(ALL, Filter(), 1000)
    active = {(one.conversation, one.user) for one in records if one.conversation and one.time * 1000 >= since}
    assert {place[1:] for place, _ in talks} == active
    await ledger.close()


async def test_of_no_time_there_is_nothing(database: Database, calendar: Calendar) -> None:
    reports = Reports(database, calendar, lambda: 1e9)
    never = Span(0, 0)
    for by in ("user", "model", "group"):
        assert await reports.usage(by, never) == ([], Item(""))
        assert await reports.usage_of_models(by, never) == (([], Item("")), {})
        assert await reports.lines(by, never, Filter(), "day", 3) == ({}, {})


async def test_a_request_is_found_by_whatever_id_somebody_has(database: Database, make: Make) -> None:
    ledger = make()
    made = [
        record(NOON + at, steps=[Step("claude", "one", 200, "relay", "", 0.1, upstream_id=vendors)])
        for at, vendors in ((0, "req_9"), (1, "req_5"), (2, "req_7"))
    ]
    for one in made:
        one.request_id = "mine"
        ledger.record(one)
    await settled(ledger)
    reports = Reports(database, Calendar(UTC), lambda: 1e9)
    first, second, third = (one.id for one in made)
    wanted = {first: first, "req_9": first, "req_5": second, "mine": third}
    for request_id in (*wanted, "nobody's"):
        found = await reports.request(request_id)
        assert (found and found["id"]) == wanted.get(request_id), request_id
    await ledger.close()


def test_a_row_goes_to_the_end_of_each_index_of_requests() -> None:
    for index in requests.indexes:
        assert index.columns.keys()[0] in {"id", "at"}, index.name


async def test_what_was_deleted_earlier_is_not_looked_for_in_single_requests(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are kept for longer than they were before: an hour that has none any more counts whole."""
    monkeypatch.setattr("aimux.metering.reports.now", lambda: AT)
    calendar = Calendar(UTC)
    ledger, reports = ledger_of(database, calendar, tmp_path / "l"), Reports(database, calendar, lambda: 90 * DAY)
    for days in (40, 20):
        for minute in range(120):
            ledger.record(record(NOON - days * DAY + 60 * minute))
    await settled(ledger)
    ledger.keep = 30 * DAY
    await ledger.upkeep(AT)
    ledger.keep = 50 * DAY
    ledger.record(record(NOON - 60 * DAY))  # what comes late and is deleted again makes no difference
    await settled(ledger)
    await ledger.upkeep(AT)
    for days, expected in ((40, 120), (20, 60)):
        since = AT - int(days * DAY * 1000) + 30 * 60_000
        assert (await reports.usage("user", Span(since, since + 3_600_000))).total.requests == expected
    await ledger.close()
