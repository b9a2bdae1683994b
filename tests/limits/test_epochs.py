"""Grants, reloads and clocks: what is used stays used."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from aimux.limits.history import History, Use
from aimux.limits.rules import Grant, Owner, Policy, Who, amount_of
from tests.limits.support import ALICE, BERLIN, MIDNIGHT, NOON, default, lease, limits, refusal, use


def test_a_grant_is_more_until_its_end() -> None:
    grant = Grant("g1", Owner("user", "alice"), "cost_per_day", amount_of("cost_per_day", 20), NOON, NOON + 3600)
    book = limits(default("cost_per_day", amount_of("cost_per_day", 5)), grants=(grant,))
    book.settle(lease(book), 0, 0, amount_of("cost_per_day", 7))
    [standing] = book.standings(ALICE, NOON)
    assert (standing.amount, standing.used) == (25, 7)
    lease(book)
    assert refusal(book, now=NOON + 3600).standing.amount == 5
    use(book, 0, Who("bob"))
    assert book.standings(Who("bob"), NOON)[0].amount == 5


@pytest.mark.parametrize("limit", ["concurrent_requests", "requests_per_minute"])
def test_a_grant_is_of_what_has_no_calendar_window_too(limit: str) -> None:
    grant = Grant("g1", Owner("user", "alice"), limit, 1, NOON - 60, NOON + 30)
    book = limits(default(limit, 1), grants=(grant,))
    lease(book)
    lease(book)
    assert refusal(book).standing.amount == 2
    assert refusal(book, now=NOON + 30).standing.amount == 1
    lease(book, Who("bob"))
    assert refusal(book, Who("bob")).standing.amount == 1


def test_what_is_used_outlives_a_reload_and_open_leases_settle_where_they_were_taken() -> None:
    book = limits(default("tokens_per_day", 10_000))
    open_one = lease(book)
    use(book, 3000)
    book.adopt(Policy((default("tokens_per_day", 4000),)), BERLIN, NOON)
    assert book.standings(ALICE, NOON)[0].amount == 4000
    refusal(book)
    assert book.settle(open_one, 500, 0, 0)
    assert book.standings(ALICE, NOON)[0].used == 3500
    book.adopt(Policy(), BERLIN, NOON)
    use(book, 10**9)


def test_another_amount_holds_for_the_next_request() -> None:
    """Though nobody has looked in between at what is used."""
    for limit in ("tokens_per_day", "tokens_per_minute", "requests_per_minute", "concurrent_requests"):
        book = limits(default(limit, 1_000_000))
        lease(book)
        book.adopt(Policy((default(limit, 1),)), BERLIN, NOON)
        assert refusal(book).standing.amount == 1
        book.adopt(Policy((default(limit, 1_000_000),)), BERLIN, NOON)
        lease(book)


def test_a_window_that_begins_this_moment_has_begun_once() -> None:
    book = limits(default("tokens_per_day", 10_000))
    use(book, 9_000)
    for used in (4_000, 8_000):
        use(book, 4_000, now=MIDNIGHT)
        assert book.standings(ALICE, MIDNIGHT)[0].used == used
    book.adopt(book.policy, BERLIN, MIDNIGHT)
    assert book.standings(ALICE, MIDNIGHT)[0].used == 8_000


def seen(day: float) -> History:
    """A ledger that has seen 1,200 tokens since then."""
    return History({day: [Use("alice", "", (), "claude", "m", 1200, 0)]})


def test_a_budget_that_is_new_counts_what_the_ledger_has() -> None:
    past, book = seen(MIDNIGHT - 86400), limits()
    rules = (default("tokens_per_day", 1000), default("requests_per_minute", 5))
    book.adopt(Policy(rules), BERLIN, NOON, past)
    assert refusal(book).standing.used == 1200
    book.adopt(Policy(rules), BERLIN, NOON, past)
    assert refusal(book).standing.used == 1200, "what is counted is not counted again"
    lease(book, now=MIDNIGHT)


def test_what_is_told_of_yesterday_does_not_bring_it_back() -> None:
    book = limits(default("tokens_per_day", 1000))
    under_way = lease(book, now=MIDNIGHT + 1)
    book.add(ALICE, "claude", "m", MIDNIGHT - 5, 100, 0, MIDNIGHT - 1)
    book.settle(under_way, 50, 0, 0)
    [standing] = book.standings(ALICE, MIDNIGHT + 2)
    assert standing.used == 50


def test_another_time_zone_has_other_days() -> None:
    book = limits(default("tokens_per_day", 1000))
    use(book, 700)
    tokyo = ZoneInfo("Asia/Tokyo")
    day = datetime(2026, 11, 22, tzinfo=tokyo).timestamp()
    book.adopt(book.policy, tokyo, NOON, seen(day - 86400))
    [standing] = book.standings(ALICE, NOON)
    assert standing.used == 1200
    assert standing.resets_at == day


def test_a_clock_that_was_wrong_holds_nobody_up() -> None:
    book = limits(default("requests_per_minute", 1))
    lease(book, now=NOON + 86400)
    lease(book, now=NOON)


def test_a_clock_that_was_wrong_forgets_nothing_that_was_used() -> None:
    book = limits(default("tokens_per_day", 5000))
    use(book, 700)
    tomorrow = lease(book, now=NOON + 86400)
    book.settle(tomorrow, 300, 0, 0)
    for now, used in ((NOON, 700), (NOON + 86400, 300), (NOON + 2 * 86400, 0)):
        [standing] = book.standings(ALICE, now)
        assert standing.used == used


def test_who_was_looked_at_a_little_later_than_others_takes_nothing_back() -> None:
    """With the time at which its body had come, before it was unpacked; or by a clock that is set right."""
    book = limits(default("tokens_per_day", 10_000), default("requests_per_minute", 4))
    today = [lease(book, now=MIDNIGHT + 1) for _ in range(2)]
    today.append(lease(book, now=MIDNIGHT - 1))
    today.append(lease(book, now=MIDNIGHT + 2))
    assert refusal(book, now=MIDNIGHT + 2).standing.limit == "requests_per_minute"
    for one in today:
        book.settle(one, 100, 0, 0)
    assert [standing.used for standing in book.standings(ALICE, MIDNIGHT + 3)] == [400, 4]
