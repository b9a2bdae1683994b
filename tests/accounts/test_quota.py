"""Cooldowns and windows: until when, and what ends them early."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.accounts.quota import CEILING, MOST_MODELS, Quota
from aimux.plugin import LimitWindow
from tests.accounts.support import HOUR, START

FULL = LimitWindow("5h", 1.0, START + 5 * HOUR, status="rejected")
ROOM = LimitWindow("5h", 0.2, START + 5 * HOUR)
WEEK = LimitWindow("7d", 0.4, START + 90 * HOUR)


def cooled(until: float | None = START + HOUR, *windows: LimitWindow, model: str = "") -> Quota:
    quota = Quota()
    quota.observe(windows, START)
    quota.cool(START, until=until, reason="limited", model=model)
    return quota


@pytest.mark.parametrize(
    ("until", "windows", "expected"),
    [
        (START + HOUR, (), START + HOUR),
        (START + HOUR, (FULL, WEEK), START + HOUR),
        (None, (), START + 30),
        (math.nan, (), START + 30),
        (START + 0.02, (), START + 1),
        (START - 99, (), START + 1),
        (START + 900 * HOUR, (), START + CEILING),
        (START * 1000, (), START + CEILING),
        (math.inf, (FULL, WEEK), START + 90 * HOUR),
        (START + 99 * HOUR, (FULL,), START + 5 * HOUR),
    ],
    ids=[
        "the upstream's reset",
        "within its windows",
        "not told",
        "nonsense",
        "a floor",
        "in the past",
        "a ceiling",
        "milliseconds taken for seconds",
        "at most the longest window",
        "at most the only window",
    ],
)
def test_until_when(until: float | None, windows: tuple[LimitWindow, ...], expected: float) -> None:
    assert cooled(until, *windows).free_at("") == expected


def test_a_models_limit_may_outlast_the_windows_of_the_account() -> None:
    assert cooled(START + 99 * HOUR, FULL, model="opus").free_at("opus") == START + 99 * HOUR
    assert cooled(math.inf, FULL, model="opus").free_at("opus") == START + CEILING


def test_a_limit_without_a_time_does_not_shorten_one_with() -> None:
    quota = cooled(START + HOUR)
    quota.cool(START + 1, until=None, reason="limited")
    assert quota.free_at("") == START + HOUR
    quota.cool(START + 2, until=START + 60, reason="limited")
    assert quota.free_at("") == START + 60, "the last word with a time counts"


def test_a_window_that_has_room_again_ends_the_cooldown() -> None:
    quota = cooled(START + 5 * HOUR, FULL)
    quota.observe([ROOM], START + 2)
    assert quota.free_at("") == 0


def test_but_not_within_its_first_second() -> None:
    quota = cooled(START + 5 * HOUR, FULL)
    quota.observe([ROOM], START + 0.9)
    assert quota.free_at("") == START + 5 * HOUR


def test_an_answer_that_was_under_way_proves_nothing_where_no_window_was_full() -> None:
    quota = cooled(START + HOUR, ROOM)
    quota.observe([ROOM], START + 10)
    assert quota.free_at("") == START + HOUR
    quota.observe([ROOM], START + 60)
    assert quota.free_at("") == 0, "a minute later it does: the limit was a mistake, or is over"


@pytest.mark.parametrize("windows", [(), (FULL,), (ROOM, LimitWindow("7d", 1.0, status="rejected"))])
def test_what_does_not_end_it(windows: tuple[LimitWindow, ...]) -> None:
    quota = cooled(START + 5 * HOUR, FULL)
    quota.observe(windows, START + HOUR)
    assert quota.free_at("") == START + 5 * HOUR


def test_a_models_cooldown_is_ended_by_its_own_kind_of_window_alone() -> None:
    full = LimitWindow("7d_big", 1.0, START + 90 * HOUR, status="rejected", scope="big")
    quota = cooled(START + 90 * HOUR, full, model="claude-big")
    quota.observe([ROOM, WEEK], START + HOUR)
    assert quota.free_at("claude-big") == START + 90 * HOUR
    assert quota.free_at("claude-small") == 0
    quota.observe([ROOM, LimitWindow("7d_big", 0.1, START + 180 * HOUR, scope="big")], START + HOUR)
    assert quota.free_at("claude-big") == 0


def test_the_whole_accounts_cooldown_is_not_ended_by_a_models_window() -> None:
    quota = cooled(START + HOUR)
    quota.observe([LimitWindow("7d_big", 0.1, scope="big")], START + 100)
    assert quota.free_at("") == START + HOUR


def test_listeners_hear_of_changes_and_not_of_the_usual_answer() -> None:
    quota, heard = Quota(), []
    quota.listeners.append(lambda: heard.append(1))
    quota.observe([ROOM], START)
    assert len(heard) == 1
    quota.observe([ROOM], START + 1)
    quota.observe([], START + 1)
    assert len(heard) == 1
    quota.observe([LimitWindow("5h", 0.3, ROOM.resets_at)], START + 2)
    quota.cool(START + 3, until=None, reason="limited")
    assert len(heard) == 3


windows = st.builds(
    LimitWindow,
    st.sampled_from(["5h", "7d", "7d_big"]),
    st.none() | st.floats(0, 2) | st.floats(),
    st.none() | st.floats(START - 10, START + 1e6) | st.floats(),
    st.sampled_from(["allowed", "warning", "rejected"]),
    st.sampled_from([None, "big"]),
)


@given(st.lists(st.lists(windows, max_size=4), max_size=6), st.floats(0, 1e6))
def test_used_is_a_fraction_and_what_changes_lies_ahead(answers: list[list[LimitWindow]], later: float) -> None:
    quota = Quota()
    for answer in answers:
        quota.observe(answer, START)
    quota.settle(START + later)
    assert 0 <= quota.used <= 1
    assert quota.changes_at > START + later
    for window in quota.windows.values():
        assert window.used is None or 0 <= window.used < math.inf
        assert window.resets_at is None or datetime.fromtimestamp(window.resets_at, UTC)


SOME = LimitWindow("7d_x", 1.0, START + 50 * HOUR, status="warning", scope="x")


def test_what_is_included_is_left_until_a_window_of_everything_is_used_up() -> None:
    quota = Quota()
    quota.observe((ROOM, WEEK, SOME), START)
    assert quota.spent_until("m", START) == 0.0
    quota.observe((FULL,), START)
    assert quota.spent_until("m", START) == START + 5 * HOUR
    quota.observe((LimitWindow("7d", 1.0, START + 90 * HOUR),), START)
    assert quota.spent_until("m", START) == START + 90 * HOUR
    assert quota.spent_until("m", START + 91 * HOUR) == 0.0


def test_a_window_of_some_models_is_that_of_an_answer_that_was_paid_while_there_was_room() -> None:
    quota = Quota()
    quota.observe((ROOM, WEEK, SOME), START)
    assert quota.full_for_some
    quota.note_paid("opus", START)
    assert quota.spent_until("opus", START) == START + 50 * HOUR
    assert quota.spent_until("haiku", START) == 0.0
    assert quota.spent_until("opus", START + 51 * HOUR) == 0.0
    quota.observe((LimitWindow("7d_x", 0.0, START + 50 * HOUR, scope="x"),), START + HOUR)
    assert quota.spent_until("opus", START + HOUR) == 0.0, "its owner got a fresh one"


def test_an_answer_that_was_paid_for_want_of_the_whole_accounts_says_nothing_of_its_model() -> None:
    quota = Quota()
    quota.observe((FULL, SOME), START)
    quota.note_paid("haiku", START)
    quota.observe((ROOM,), START)
    assert quota.spent_until("haiku", START) == 0.0


def test_since_when_nothing_that_is_included_is_left() -> None:
    quota, full_week = Quota(), LimitWindow("7d", 1.0, START + 90 * HOUR)
    quota.observe((ROOM, WEEK), START)
    quota.observe((FULL,), START + 60)
    quota.observe((FULL,), START + 120)
    quota.observe((full_week,), START + 180)
    assert quota.spent_since("m", START + 200) == START + 60
    assert quota.spent_since("m", START + 6 * HOUR) == START + 180, "the other one is over"
    anew = LimitWindow("5h", 1.0, START + 11 * HOUR)
    quota.observe((anew, WEEK), START + 7 * HOUR)
    assert quota.spent_since("m", START + 7 * HOUR) == START + 7 * HOUR
    quota.replace({"7d": full_week}, {}, START)
    assert quota.spent_since("m", START) == 0.0, "nobody told"


def test_since_when_a_model_is_paid_extra() -> None:
    quota = Quota()
    quota.observe((ROOM, WEEK, SOME), START)
    for seconds in (10, 20):
        quota.note_paid("opus", START + seconds)
    assert quota.spent_since("opus", START + 30) == START + 10


def test_where_two_turn_out_to_be_one_the_longer_cooldown_counts() -> None:
    one, other = Quota(), Quota()
    one.cool(START, until=START + 600, reason="limited")
    one.cool(START, until=START + 60, reason="limited", model="opus")
    other.cool(START, until=START + 60, reason="limited")
    other.cool(START, until=START + 900, reason="limited", model="opus")
    one.absorb(other, START)
    assert (one.free_at(""), one.free_at("opus")) == (START + 600, START + 900)


def test_a_bounded_number_of_models_cools_down() -> None:
    quota = cooled(START + 1)
    for number in range(MOST_MODELS + 10):
        quota.cool(START, until=START + 100 + number, reason="limited", model=f"m{number}")
    assert len(quota.cooldowns) == MOST_MODELS
    assert {"", f"m{MOST_MODELS + 9}"} <= {*quota.cooldowns}
    assert "m10" not in quota.cooldowns, "the one that ends first goes"
