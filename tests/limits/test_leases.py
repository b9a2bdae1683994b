"""When there is room, what becomes of it, and what a refusal says."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import datetime

import pytest

from aimux.limits.habits import MAX_HABITS, Habits
from aimux.limits.leases import MAX_MODELS, MAX_TERMS
from aimux.limits.rules import NANO, Owner, Policy, Rule, Who, amount_of
from aimux.limits.sums import Lease
from tests.limits.support import ALICE, BERLIN, MIDNIGHT, NOON, ask, default, lease, limits, refusal, use


def test_the_last_piece_can_be_used_by_one_request_and_not_by_two() -> None:
    book = limits(default("tokens_per_day", 1000))
    last = lease(book)  # 4,000 bytes are 1,000 tokens, and there is the answer
    refusal(book)
    book.settle(last, 900, 50, 0)
    again = lease(book)
    book.settle(again, 900, 50, 0)
    found = refusal(book)
    assert found.standing.used == 1900
    assert found.free_at == MIDNIGHT


def test_what_is_under_way_counts_with_what_it_will_probably_take() -> None:
    book = limits(default("tokens_per_day", 4000))
    leases = [lease(book), lease(book)]
    refusal(book)
    book.cancel(leases[0])
    lease(book)


def test_answers_are_reserved_as_they_usually_are() -> None:
    book = limits(default("tokens_per_day", 10**9))
    for _ in range(20):
        book.settle(lease(book), 1000, 100, amount_of("cost_per_day", 0.011))
    usual = lease(book)
    assert usual.tokens == pytest.approx(1100, abs=2)
    assert usual.cost == pytest.approx(0.011 * NANO, rel=0.01)
    assert lease(book, Who("bob"), size=8000).tokens == pytest.approx(2100, abs=2), "as the model's others do"


def test_nothing_is_learned_from_estimates() -> None:
    book = limits(default("tokens_per_day", 10**9))
    before = lease(book)
    for _ in range(5):
        book.settle(lease(book), 500_000, 0, 0, estimated=True)
        book.estimate(lease(book))
    after = lease(book)
    assert (after.tokens, after.cost) == (before.tokens, before.cost)
    assert not book.habits.of(ALICE.user, "m").seen, "not that what was reserved is right, either"


def test_habits_do_not_fill_the_memory() -> None:
    habits = Habits()
    for number in range(MAX_HABITS + 50):
        habits.of("alice", f"model-{number}")
    assert len(habits) == MAX_HABITS


def test_callers_and_models_do_not_fill_the_memory_and_what_is_open_is_known() -> None:
    book = limits(default("concurrent_requests", 2))
    lease(book)
    before = book.terms(ALICE)
    for number in range(MAX_TERMS):
        book.terms(Who(f"user-{number}"))
    terms = book.terms(ALICE)
    assert terms is not before
    for number in range(2 * MAX_MODELS):
        book.plan(terms, "claude", f"model-{number}", NOON)
    assert len(terms.plans) <= MAX_MODELS
    lease(book)
    refusal(book)


def test_requests_open_at_once() -> None:
    book = limits(default("concurrent_requests", 2))
    first, _ = lease(book), lease(book)
    found = refusal(book)
    assert (found.standing.limit, found.standing.used, found.standing.resets_at) == ("concurrent_requests", 2, None)
    book.settle(first, 0, 0, 0)
    lease(book)


def test_a_rate_rolls() -> None:
    book = limits(default("requests_per_minute", 2))
    lease(book, now=NOON)
    lease(book, now=NOON + 20)
    assert refusal(book, now=NOON + 30).free_at == NOON + 60
    lease(book, now=NOON + 60)
    assert refusal(book, now=NOON + 61).free_at == NOON + 80


def test_a_request_belongs_to_the_day_in_which_it_began() -> None:
    book = limits(default("tokens_per_day", 5000))
    late = lease(book, now=MIDNIGHT - 1)
    early = lease(book, now=MIDNIGHT + 1)
    book.settle(late, 50_000, 0, 0)
    book.settle(early, 700, 0, 0)
    [standing] = book.standings(ALICE, MIDNIGHT + 2)
    assert standing.used == 700


def test_what_ends_after_somebody_has_looked_at_the_next_day_belongs_to_its_own() -> None:
    book = limits(default("tokens_per_day", 5000), default("tokens_per_month", 90_000))
    late = lease(book, now=MIDNIGHT - 1)
    assert [one.used for one in book.standings(ALICE, MIDNIGHT + 1)] == [0, late.tokens]
    book.settle(late, 7000, 0, 0)
    assert [one.used for one in book.standings(ALICE, MIDNIGHT + 1)] == [0, 7000]


def test_a_minute_goes_on_over_midnight() -> None:
    book = limits(
        default("tokens_per_day", 10**6), default("requests_per_minute", 9), default("tokens_per_minute", 10**6)
    )
    late = lease(book, now=MIDNIGHT - 5)
    use(book, 300, now=MIDNIGHT + 1)
    book.settle(late, 7000, 0, 0)
    assert [one.used for one in book.standings(ALICE, MIDNIGHT + 2)] == [300, 2, 7300]
    assert [one.used for one in book.standings(ALICE, MIDNIGHT + 56)] == [300, 1, 300]


def test_what_outlasts_its_minute_counts_in_none_of_the_next_and_is_under_way() -> None:
    book = limits(default("tokens_per_minute", 5000), default("requests_per_minute", 3))
    slow = lease(book, now=NOON)
    other = lease(book, now=NOON + 61)
    book.settle(other, 4999, 0, 0)
    refusal(book, now=NOON + 62)
    book.settle(slow, 4_000_000, 0, 0)
    lease(book, now=NOON + 62)
    assert [one.used for one in book.standings(ALICE, NOON + 62)][1] == 2


def test_a_cancelled_request_is_given_back_to_the_minute() -> None:
    book = limits(default("requests_per_minute", 2), default("tokens_per_minute", 10**6))
    for _ in range(5):
        assert book.cancel(lease(book))
    use(book, 700)
    assert [one.used for one in book.standings(ALICE, NOON)] == [1, 700]
    assert [one.used for one in book.standings(ALICE, NOON + 61)] == [0, 0]


def test_a_limit_of_nothing_lets_nothing_through() -> None:
    for name in ("tokens_per_day", "cost_per_month", "concurrent_requests", "requests_per_minute"):
        found = refusal(limits(default(name, 0)))
        assert found.free_at > NOON
        assert found.standing.part == 1


def test_what_costs_nothing_is_not_held_up_by_a_budget_of_costs() -> None:
    book = limits(default("cost_per_day", NANO))
    book.settle(lease(book), 1000, 0, NANO)
    refusal(book)
    free = book.reserve(book.plan(book.terms(ALICE), "claude", "m", NOON), 4000, NOON, costless=True)
    assert isinstance(free, Lease)


def test_the_refusal_names_the_limit_that_is_free_last() -> None:
    book = limits(default("requests_per_minute", 1), default("tokens_per_month", 10), default("tokens_per_day", 10))
    use(book, 100)
    found = refusal(book)
    assert found.standing.limit == "tokens_per_month"
    assert found.free_at == datetime(2026, 12, 1, tzinfo=BERLIN).timestamp()


def test_a_lease_knows_the_budgets_that_it_counts_against() -> None:
    book = limits(default("tokens_per_day", 10_000), default("cost_per_day", NANO), default("concurrent_requests", 1))
    book.settle(lease(book), 1000, 0, NANO // 2)
    told = {one.limit: one.part for one in book.budgets_of(lease(book, size=0).plan, NOON)}
    assert told["cost_per_day"] == pytest.approx(0.5, abs=0.01)
    assert told["tokens_per_day"] == pytest.approx(0.1, abs=0.01)
    assert len(told) == 2


def test_for_whom_no_limit_holds() -> None:
    book = limits(Rule(Owner("group", "research"), "tokens_per_day", 5))
    assert not book.terms(ALICE).free
    assert book.terms(Who("bob")).free
    book.adopt(Policy(), BERLIN, NOON)
    assert book.terms(ALICE).free


def test_a_lease_takes_microseconds() -> None:
    """Under 3 µs on the machine of bench/README.md; here only that nothing walks through other people's counters."""
    names = ("concurrent_requests", "requests_per_minute", "tokens_per_day", "cost_per_month")
    book = limits(*(default(name, 10**15) for name in names))
    people = [Who(f"user-{number}", "t", ("research",)) for number in range(2000)]
    for who in people:
        ask(book, who)
    rounds = []
    for _ in range(20):
        began = time.perf_counter()
        for who in people[:200]:
            ask(book, who)
        rounds.append((time.perf_counter() - began) / 200)
    assert min(rounds) < 30e-6


def test_the_core_loads_without_what_it_does_not_need() -> None:
    code = (
        "import sys, aimux.limits.leases, aimux.limits.fair, aimux.limits.shares; "
        "print(*({'pydantic', 'sqlalchemy', 'aiohttp'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
