"""The choice of an account: by which strategy, and in which order."""

from __future__ import annotations

import collections
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.accounts import Account, Selection
from aimux.accounts.selection import Slot, choose, rank
from aimux.plugin import AccountSettings, Action, LimitWindow, Verdict
from tests.accounts.support import START, chosen, pool_of, used


async def test_least_used_takes_the_most_room_in_the_tightest_window(make_pool: Any, state_dir: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "a b c")
    a, b, c = pool.accounts.values()
    used(a, 0.2)
    used(a, 0.8, "7d")
    used(b, 0.5)
    used(c, 0.6)
    assert chosen(pool, 3) == ["b"] * 3
    used(b, 0.9)
    assert chosen(pool, 1) == ["c"]
    used(a, 0.1, "7d")
    assert chosen(pool, 1) == ["a"]


async def test_a_window_that_was_reset_counts_as_unused(make_pool: Any, state_dir: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "a b")
    used(pool.accounts["a"], 0.9, lasts=60)
    used(pool.accounts["b"], 0.5)
    assert chosen(pool, 1) == ["b"]
    assert chosen(pool, 1, now=START + 60) == ["a"]


async def test_then_the_fewest_in_flight_decide_so_that_a_burst_spreads(make_pool: Any, state_dir: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "a b c")
    for each, fraction in zip(pool.accounts.values(), (0.41, 0.42, 0.44), strict=True):
        used(each, fraction)
    busy = []
    for _ in range(9):
        account = pool.select(Selection(), START)
        assert account is not None
        account.load(1)
        busy.append(account)
    assert collections.Counter(account.name for account in busy) == {"a": 3, "b": 3, "c": 3}
    for account in busy:
        account.load(-int(account.name == "b"))
    assert chosen(pool, 1) == ["b"]


async def test_a_rejected_window_counts_as_full_whatever_it_says_is_used(make_pool: Any, state_dir: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "a b")
    pool.accounts["a"].observe([LimitWindow("5h", 0.1, START + 60, status="rejected")], START)
    used(pool.accounts["b"], 0.9)
    assert chosen(pool, 1) == ["b"]


async def test_a_window_of_one_model_does_not_count_for_the_account(make_pool: Any, state_dir: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "a b")
    pool.accounts["a"].observe([LimitWindow("7d_big", 1.0, START + 60, status="rejected", scope="big")], START)
    used(pool.accounts["b"], 0.3)
    assert chosen(pool, 1) == ["a"]


@pytest.mark.parametrize("strategy", ["least_used", "round_robin"])
async def test_idle_accounts_take_turns_by_weight(make_pool: Any, state_dir: Any, strategy: str) -> None:
    accounts = {"a": AccountSettings(weight=3), "b": AccountSettings(weight=1.5)}
    pool = await pool_of(make_pool, state_dir, "a b c", strategy=strategy, accounts=accounts)
    assert collections.Counter(chosen(pool, 110)) == {"a": 60, "b": 30, "c": 20}


async def test_a_heavier_account_may_be_used_further(make_pool: Any, state_dir: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "a b", accounts={"a": AccountSettings(weight=2)})
    used(pool.accounts["a"], 0.6)
    used(pool.accounts["b"], 0.4)
    assert chosen(pool, 1) == ["a"]


async def test_priority_fills_the_first_until_it_cannot_serve(make_pool: Any, state_dir: Any) -> None:
    accounts = {"a": AccountSettings(priority=1), "c": AccountSettings(weight=2)}
    pool = await pool_of(make_pool, state_dir, "a b c", strategy="priority", accounts=accounts)
    assert chosen(pool, 3) == ["c"] * 3
    pool.accounts["c"].apply(Verdict(Action.COOL_DOWN, until=START + 60), START)
    assert chosen(pool, 3) == ["b"] * 3
    pool.accounts["b"].park("broken")
    assert chosen(pool, 3) == ["a"] * 3
    assert chosen(pool, 3, now=START + 60) == ["c"] * 3


@pytest.mark.parametrize("strategy", ["least_used", "round_robin"])
async def test_a_lower_priority_comes_first_in_every_strategy(make_pool: Any, state_dir: Any, strategy: str) -> None:
    accounts = {"a": AccountSettings(priority=5), "b": AccountSettings(priority=-1)}
    pool = await pool_of(make_pool, state_dir, "a b c", strategy=strategy, accounts=accounts)
    used(pool.accounts["b"], 0.95)
    assert chosen(pool, 3) == ["b"] * 3
    assert chosen(pool, 3, Selection(exclude=frozenset("b"))) == ["c"] * 3


async def test_who_comes_back_gets_its_share_and_not_what_it_missed(make_pool: Any, state_dir: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "a b c", strategy="round_robin")
    pool.accounts["a"].disable()
    chosen(pool, 100)
    pool.accounts["a"].enable(START)
    assert chosen(pool, 9).count("a") in {3, 4}


slots = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.3, 0.33, 0.98, 1.0]),  # used
        st.integers(0, 3),  # in flight
        st.sampled_from([0.0, 1.0, 2.5]),  # served
        st.sampled_from([0.5, 1.0, 4.0]),  # weight
        st.integers(-1, 1),  # priority
    ),
    min_size=1,
    max_size=8,
)


@given(slots, st.sampled_from(["least_used", "round_robin", "priority"]))
def test_ranks_are_a_total_order_that_respects_priority(rows: Any, strategy: Any) -> None:
    made = []
    for index, (fraction, in_flight, served, weight, priority) in enumerate(rows):
        account = Account(str(index), "demo")
        slot = Slot(index, account.quota, AccountSettings(weight=weight, priority=priority), lambda _: None)
        slot.accounts = [account]
        account.observe([LimitWindow("5h", fraction)], START)
        slot.in_flight, slot.served = in_flight, served
        slot.settle(START)
        made.append(slot)
    best = choose(made, Selection(), strategy, START)
    assert best is not None
    assert best.settings.priority == min(slot.settings.priority for slot in made)
    assert all(rank(strategy, best) <= rank(strategy, slot) for slot in made)
    assert choose(made, Selection(exclude=frozenset(str(i) for i in range(8))), strategy, START) is None
    assert choose([], Selection(), strategy, START) is None
