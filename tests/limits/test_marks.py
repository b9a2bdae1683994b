"""What is told of limits that come near their end."""

from __future__ import annotations

import pytest

from aimux.limits.leases import Limits, Mark
from aimux.limits.rules import NANO, Grant, Owner, Policy, amount_of
from tests.limits.support import ALICE, BERLIN, MIDNIGHT, NOON, default, lease, refusal, use


@pytest.mark.parametrize("limit", ["tokens_per_day", "cost_per_day"])
def test_each_mark_is_told_once_a_window(limit: str) -> None:
    marks: list[Mark] = []
    book = Limits(Policy((default(limit, amount_of(limit, 1000)),)), BERLIN, on_mark=marks.append)

    def took(amount: int, now: float = NOON) -> None:
        tokens, cost = (amount, 1) if limit == "tokens_per_day" else (1, amount * NANO)
        book.settle(lease(book, now=now), tokens, 0, cost)

    for amount in (700, 90, 10, 100, 50, 40):
        took(amount)
    assert [(mark.part, mark.standing.used) for mark in marks] == [(0.8, 800), (0.95, 950)]
    took(999, now=MIDNIGHT)
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


def test_a_request_of_yesterday_that_ends_today_does_not_bring_yesterday_back() -> None:
    marks: list[Mark] = []
    book = Limits(Policy((default("tokens_per_day", 1000),)), BERLIN, on_mark=marks.append)
    late = lease(book, now=MIDNIGHT - 60)
    use(book, 500, now=MIDNIGHT + 60)
    book.adopt(Policy((default("tokens_per_day", 600),)), BERLIN, MIDNIGHT + 90)
    open_still = lease(book, now=MIDNIGHT + 91, size=0)
    book.settle(late, 300, 0, 0)
    assert [(mark.part, mark.standing.used) for mark in marks] == [(0.8, 500 + open_still.tokens)]
    book.settle(open_still, 77, 0, 0)
    [standing] = book.standings(ALICE, MIDNIGHT + 120)
    assert standing.used == 577


def test_a_grant_that_came_while_a_request_ran_moves_the_marks() -> None:
    marks: list[Mark] = []
    rule = default("tokens_per_day", 1000)
    book = Limits(Policy((rule,)), BERLIN, on_mark=marks.append)
    use(book, 700)
    running = lease(book)
    grant = Grant("g", Owner("user", "alice"), "tokens_per_day", 1000, NOON + 10, NOON + 3600)
    book.adopt(Policy((rule,), (grant,)), BERLIN, NOON + 11)
    book.settle(running, 200, 0, 0)
    assert not marks, "900 of 2000"
    use(book, 750, now=NOON + 60)
    assert [(mark.part, mark.standing.used, mark.standing.amount) for mark in marks] == [(0.8, 1650, 2000)]


def test_what_ran_while_another_limit_came_moves_the_marks_of_the_first() -> None:
    marks: list[Mark] = []
    day, month = default("tokens_per_day", 10_000), default("tokens_per_month", 100_000)
    book = Limits(Policy((day,)), BERLIN, on_mark=marks.append)
    running = lease(book)
    book.adopt(Policy((day, month)), BERLIN, NOON + 1)
    use(book, 10, now=NOON + 2)
    book.settle(running, 8990, 0, 0)
    assert [(mark.part, mark.standing.limit, mark.standing.used) for mark in marks] == [(0.8, "tokens_per_day", 9000)]
