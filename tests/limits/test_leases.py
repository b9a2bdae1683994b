"""What holds for whom, when there is room, and what a refusal says."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from aimux.limits.habits import MAX_HABITS, Habits
from aimux.limits.history import History, Use
from aimux.limits.leases import Limits, Mark, Refusal
from aimux.limits.rules import (
    EVERYBODY,
    NANO,
    Grant,
    Owner,
    Policy,
    Rule,
    Scope,
    Who,
    amount_of,
)
from aimux.limits.sums import Lease

BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 11, 21, 12, tzinfo=BERLIN).timestamp()
MIDNIGHT = datetime(2026, 11, 22, tzinfo=BERLIN).timestamp()
ALICE = Who("alice", "laptop", ("research",))


def limits(*rules: Rule, grants: tuple[Grant, ...] = ()) -> Limits:
    return Limits(Policy(rules, grants), BERLIN)


def default(limit: str, amount: int, **scope: str) -> Rule:
    return Rule(EVERYBODY, limit, amount, Scope(**scope))


def strictest(policy: Policy, who: Who) -> dict[str, int]:
    """The smallest amount by limit name."""
    found: dict[str, int] = {}
    for holding in policy.holdings(who):
        found[holding.key.limit] = min(holding.amount, found.get(holding.key.limit, holding.amount))
    return found


IDS = itertools.count()


def ask(book: Limits, who: Who = ALICE, *, now: float = NOON, size: int = 4000, model: str = "m") -> Lease | Refusal:
    return book.reserve(f"req-{next(IDS)}", book.plan(book.terms(who), "claude", model, now), size, now)


def lease(book: Limits, who: Who = ALICE, *, now: float = NOON, size: int = 4000, model: str = "m") -> Lease:
    answer = ask(book, who, now=now, size=size, model=model)
    assert isinstance(answer, Lease)
    return answer


def refusal(book: Limits, who: Who = ALICE, *, now: float = NOON, size: int = 4000, model: str = "m") -> Refusal:
    answer = ask(book, who, now=now, size=size, model=model)
    assert isinstance(answer, Refusal)
    return answer


def use(book: Limits, tokens: int, who: Who = ALICE, *, now: float = NOON) -> None:
    book.settle(lease(book, who, now=now), tokens, 0, 0)


# --- whose limits hold -----------------------------------------------------------------------------------------------


def test_ones_own_limit_stands_in_place_of_the_groups_and_this_of_the_default() -> None:
    rules = (
        default("tokens_per_day", 10),
        default("requests_per_minute", 7),
        Rule(Owner("member", "research"), "tokens_per_day", 50),
        Rule(Owner("member", "interns"), "tokens_per_day", 20),
        Rule(Owner("user", "bob"), "tokens_per_day", 1000),
    )
    policy = Policy(rules)
    assert strictest(policy, Who("carol")) == {"tokens_per_day": 10, "requests_per_minute": 7}
    assert strictest(policy, Who("carol", "", ("research",)))["tokens_per_day"] == 50
    assert strictest(policy, Who("carol", "", ("research", "interns")))["tokens_per_day"] == 20
    assert strictest(policy, Who("bob", "", ("interns",)))["tokens_per_day"] == 1000


def test_a_token_and_a_group_hold_besides() -> None:
    book = limits(
        Rule(Owner("user", "alice"), "tokens_per_day", 100_000),
        Rule(Owner("group", "research"), "tokens_per_day", 60_000),
        Rule(Owner("token", "ci"), "tokens_per_day", 20_000),
    )
    use(book, 30_000, Who("alice", "ci", ("research",)))
    assert refusal(book, Who("alice", "ci", ("research",))).standing.owner == Owner("token", "ci")
    use(book, 40_000, Who("bob", "", ("research",)))
    assert refusal(book).standing.owner == Owner("group", "research"), "what bob used is the group's as well"
    use(book, 1, Who("dave"))


def test_each_user_has_the_default_for_himself() -> None:
    book = limits(default("tokens_per_day", 5000))
    use(book, 6000, Who("alice"))
    refusal(book, Who("alice"))
    lease(book, Who("bob"))


def test_a_scope_holds_for_its_models_and_providers_alone() -> None:
    book = limits(default("requests_per_minute", 1, model="big-*"), default("requests_per_minute", 5, provider="other"))
    lease(book, model="big-1")
    assert refusal(book, model="big-2").standing.scope == "big-*"
    for _ in range(9):
        lease(book, model="small")


# --- room ------------------------------------------------------------------------------------------------------------


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


def test_habits_do_not_fill_the_memory() -> None:
    habits = Habits()
    for number in range(MAX_HABITS + 50):
        habits.of("alice", f"model-{number}")
    assert len(habits) == MAX_HABITS


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


def test_who_comes_to_another_group_has_its_limits_at_once() -> None:
    """The limits of a user are compared in one place: those of the former group must not stay there."""
    book = limits(
        Rule(Owner("member", "interns"), "tokens_per_day", 1000),
        Rule(Owner("member", "research"), "cost_per_day", NANO),
        default("requests_per_minute", 4),
    )
    intern, researcher = Who("alice", "", ("interns",)), Who("alice", "", ("research",))
    use(book, 5000, intern)
    refusal(book, intern)
    use(book, 5000, researcher)
    assert refusal(book, intern).standing.limit == "tokens_per_day"
    book.settle(lease(book, researcher), 0, 0, 2 * NANO)
    assert refusal(book, researcher).standing.limit == "cost_per_day"
    assert refusal(book, intern).standing.used == 5000, "what was used elsewhere is none of it"


def test_the_strictest_of_the_present_groups_holds() -> None:
    book = limits(
        Rule(Owner("member", "interns"), "tokens_per_day", 1000),
        Rule(Owner("member", "research"), "tokens_per_day", 9000),
    )
    intern, researcher = Who("alice", "", ("interns",)), Who("alice", "", ("research",))
    use(book, 2000, intern)
    use(book, 2000, researcher)
    assert refusal(book, intern).standing.amount == 1000
    use(book, 2000, researcher)


def test_a_limit_of_nothing_lets_nothing_through() -> None:
    for name in ("tokens_per_day", "cost_per_month", "concurrent_requests", "requests_per_minute"):
        assert refusal(limits(default(name, 0))).free_at > NOON


def test_the_refusal_names_the_limit_that_is_free_last() -> None:
    book = limits(default("requests_per_minute", 1), default("tokens_per_month", 10), default("tokens_per_day", 10))
    use(book, 100)
    found = refusal(book)
    assert found.standing.limit == "tokens_per_month"
    assert found.free_at == datetime(2026, 12, 1, tzinfo=BERLIN).timestamp()


# --- grants and epochs -----------------------------------------------------------------------------------------------


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


def test_another_time_zone_has_other_days() -> None:
    book = limits(default("tokens_per_day", 1000))
    use(book, 700)
    tokyo = ZoneInfo("Asia/Tokyo")
    day = datetime(2026, 11, 22, tzinfo=tokyo).timestamp()
    book.adopt(book.policy, tokyo, NOON, seen(day - 86400))
    [standing] = book.standings(ALICE, NOON)
    assert standing.used == 1200
    assert standing.resets_at == day


# --- what is told ----------------------------------------------------------------------------------------------------


def test_each_mark_is_told_once_a_window() -> None:
    marks: list[Mark] = []
    book = Limits(Policy((default("tokens_per_day", 1000),)), BERLIN, on_mark=marks.append)
    for tokens in (700, 90, 20, 100, 50, 40):
        use(book, tokens)
    assert [(mark.part, mark.standing.used) for mark in marks] == [(0.8, 810), (0.95, 960)]
    use(book, 999, now=MIDNIGHT)
    assert [mark.part for mark in marks[2:]] == [0.95]


def test_a_grant_moves_the_marks_and_its_end_moves_them_back() -> None:
    marks: list[Mark] = []
    grant = Grant("g", Owner("user", "alice"), "tokens_per_day", 1000, NOON - 1, NOON + 60)
    book = Limits(Policy((default("tokens_per_day", 1000),), (grant,)), BERLIN, on_mark=marks.append)
    use(book, 700)
    use(book, 200)
    assert not marks
    use(book, 1, now=NOON + 60)
    assert [(mark.part, mark.standing.used) for mark in marks] == [(0.8, 901)]


def test_a_lower_limit_brings_the_marks_nearer_at_once() -> None:
    marks: list[Mark] = []
    book = Limits(Policy((default("tokens_per_day", 1000),)), BERLIN, on_mark=marks.append)
    use(book, 500)
    book.adopt(Policy((default("tokens_per_day", 600),)), BERLIN, NOON)
    use(book, 1)
    assert [(mark.part, mark.standing.used) for mark in marks] == [(0.8, 501)]


def test_a_limit_that_is_set_below_what_was_used_is_told_with_the_first_refusal() -> None:
    marks: list[Mark] = []
    book = Limits(Policy((default("tokens_per_day", 1000),)), BERLIN, on_mark=marks.append)
    use(book, 500)
    book.adopt(Policy((default("tokens_per_day", 400),)), BERLIN, NOON)
    for _ in range(2):
        refusal(book)
    assert [(mark.part, mark.standing.used, mark.standing.amount) for mark in marks] == [(0.95, 500, 400)]


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


# --- what it costs ---------------------------------------------------------------------------------------------------


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
