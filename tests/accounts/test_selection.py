"""The decision: who is chosen, by which strategy, and that the index decides as the pure function does."""

from __future__ import annotations

import collections
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimux.accounts import Account, AccountPool, Selection
from aimux.accounts.selection import Slot, choose, rank
from aimux.accounts.sessions import Sessions
from aimux.plugin import AccountSettings, Action, LimitWindow, Verdict
from tests.accounts.support import HOUR, START, Clock, credential_file, put


async def pool_of(make_pool: Any, state_dir: Any, names: str, **settings: Any) -> AccountPool:
    for name in names.split():
        name, _, organization = name.partition("@")
        put(state_dir, credential_file(f"access-{name}", organization=organization or None), name)
    pool: AccountPool = make_pool(**settings)
    await pool.load()
    return pool


def used(account: Account, fraction: float, name: str = "5h", *, now: float = START, lasts: float = HOUR) -> None:
    account.observe([LimitWindow(name, fraction, now + lasts)], now)


def chosen(pool: AccountPool, times: int, selection: Selection | None = None, now: float = START) -> list[str]:
    found = [pool.select(selection or Selection(), now) for _ in range(times)]
    return [account.name if account else "-" for account in found]


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
        account.in_flight += 1
        busy.append(account)
    assert collections.Counter(account.name for account in busy) == {"a": 3, "b": 3, "c": 3}
    for account in busy:
        account.in_flight -= int(account.name == "b")
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
    pool.accounts["a"].enable()
    assert chosen(pool, 9).count("a") in {3, 4}


async def test_accounts_of_one_organization_are_one_candidate(make_pool: Any, state_dir: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "a@org b@org c", strategy="round_robin")
    counts = collections.Counter(chosen(pool, 40))
    assert counts == {"a": 10, "b": 10, "c": 20}
    used(pool.accounts["a"], 0.7)
    assert pool.accounts["b"].limits["5h"].used == 0.7
    pool.accounts["b"].apply(Verdict(Action.COOL_DOWN, "limited", until=START + 60), START)
    assert pool.accounts["a"].state(START).status == "cooling"
    assert chosen(pool, 3) == ["c"] * 3
    assert set(chosen(pool, 3, now=START + 61)) == {"a", "b", "c"}


async def test_parking_concerns_one_login_of_an_organization_alone(make_pool: Any, state_dir: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "a@org b@org")
    pool.accounts["a"].park("revoked")
    assert chosen(pool, 3) == ["b"] * 3


async def test_groups(make_pool: Any, state_dir: Any) -> None:
    accounts = {"a": AccountSettings(groups=("red",)), "b": AccountSettings(groups=("red", "blue"))}
    pool = await pool_of(make_pool, state_dir, "a b c", accounts=accounts)
    assert set(chosen(pool, 6)) == {"a", "b", "c"}
    assert set(chosen(pool, 6, Selection(groups=frozenset({"blue"})))) == {"b", "c"}
    assert set(chosen(pool, 6, Selection(groups=frozenset()))) == {"c"}
    assert chosen(pool, 1, Selection(groups=frozenset({"blue"}), pinned="a")) == ["-"]


async def test_pinned(make_pool: Any, state_dir: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "a b")
    used(pool.accounts["b"], 0.9)
    pin = Selection(pinned="b", session="s")
    assert chosen(pool, 2, pin) == ["b", "b"]
    assert chosen(pool, 1, Selection(session="s")) == ["a"], "a pin doesn't move the conversation"
    assert chosen(pool, 1, Selection(pinned="nobody")) == ["-"]
    pool.accounts["b"].apply(Verdict(Action.COOL_DOWN, until=START + 60), START)
    assert chosen(pool, 1, pin) == ["-"]
    assert pool.last_resort(pin, START) is pool.accounts["b"]
    assert pool.retry_after(pin, START) == 60
    assert pool.last_resort(Selection(pinned="nobody"), START) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda account: account.apply(Verdict(Action.COOL_DOWN, until=START + 60), START),
        lambda account: account.apply(Verdict(Action.COOL_DOWN, until=START + 60, model="m"), START),
        lambda account: account.apply(Verdict(Action.PARK, "revoked"), START),
        lambda account: account.keep_off(START + 60, START, "no network"),
        lambda account: account.disable(),
    ],
    ids=["limited", "limited for the model", "parked", "held", "disabled"],
)
async def test_a_change_counts_from_the_very_next_choice(make_pool: Any, state_dir: Any, change: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "a b c", strategy="round_robin")
    assert chosen(pool, 4, Selection("m")) == ["a", "b", "c", "a"]
    change(pool.accounts["b"])
    assert chosen(pool, 3, Selection("m")) == ["c", "a", "c"]
    pool.accounts["b"].enable()
    assert "b" in chosen(pool, 3, Selection("m"), now=START + 60)


async def test_excluded_accounts_are_not_chosen_again(make_pool: Any, state_dir: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "a b@o c@o")
    tried: list[str] = []
    for _ in range(3):
        tried += chosen(pool, 1, Selection(exclude=frozenset(tried)))
    assert sorted(tried) == ["a", "b", "c"]
    assert chosen(pool, 1, Selection(exclude=frozenset(tried))) == ["-"]
    assert chosen(pool, 1) != ["-"], "and the others are none the worse for it"


async def test_a_limit_of_one_model_leaves_the_others(make_pool: Any, state_dir: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "a b", strategy="priority")
    a = pool.accounts["a"]
    a.apply(Verdict(Action.COOL_DOWN, "weekly limit", until=START + 60, model="big"), START)
    assert chosen(pool, 2, Selection(model="big")) == ["b", "b"]
    assert chosen(pool, 2, Selection(model="small")) == ["a", "a"]
    assert chosen(pool, 2) == ["a", "a"]
    assert a.state(START).status == "healthy"
    assert a.state(START).reason == "big: weekly limit"
    assert chosen(pool, 1, Selection(model="big"), now=START + 60) == ["a"]


# --- the last resort --------------------------------------------------------------------------------------------------


async def test_lesson_9_a_sole_cooling_account_is_still_asked(make_pool: Any, state_dir: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "a")
    pool.accounts["a"].apply(Verdict(Action.COOL_DOWN, until=START + 60), START)
    assert pool.select(Selection(), START) is None
    assert pool.last_resort(Selection(), START) is pool.accounts["a"]
    assert pool.retry_after(Selection(), START + 10) == 50
    assert not pool.ready(START)
    assert pool.ready(START + 60)


async def test_the_last_resort_is_who_is_free_soonest_and_never_who_needs_a_person(
    make_pool: Any, state_dir: Any
) -> None:
    pool = await pool_of(make_pool, state_dir, "a b c d")
    a, b, c, d = pool.accounts.values()
    a.apply(Verdict(Action.COOL_DOWN, until=START + 90), START)
    b.apply(Verdict(Action.COOL_DOWN, until=START + 60), START)
    c.park("revoked")
    d.disable()
    assert pool.last_resort(Selection(), START) is b
    assert pool.retry_after(Selection(exclude=frozenset("b")), START) == 60
    b.apply(Verdict(Action.COOL_DOWN, until=START + 300, model="big"), START)
    assert pool.last_resort(Selection(model="big"), START) is a
    a.disable()
    b.disable()
    assert pool.last_resort(Selection(), START) is None
    assert pool.retry_after(Selection(), START) is None


# --- conversations ----------------------------------------------------------------------------------------------------


async def test_lesson_10_a_conversation_stays_and_leaves_an_account_that_cannot_serve(
    make_pool: Any, state_dir: Any
) -> None:
    pool = await pool_of(make_pool, state_dir, "a b c", strategy="round_robin")
    talk = Selection(session="talk")
    home = chosen(pool, 1, talk)[0]
    chosen(pool, 7)
    assert chosen(pool, 5, talk) == [home] * 5
    pool.accounts[home].apply(Verdict(Action.COOL_DOWN, until=START + 60), START)
    second = chosen(pool, 1, talk)[0]
    assert second != home
    assert chosen(pool, 3, talk, now=START + 61) == [second] * 3, "and doesn't jump back"
    pool.accounts[second].park("revoked")
    assert chosen(pool, 1, talk)[0] != second


async def test_a_conversation_leaves_an_account_that_failed_it(make_pool: Any, state_dir: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "a b")
    home = chosen(pool, 1, Selection(session="talk"))[0]
    other = chosen(pool, 1, Selection(session="talk", exclude=frozenset({home})))[0]
    assert chosen(pool, 2, Selection(session="talk")) == [other] * 2


async def test_a_conversation_is_forgotten_an_hour_after_its_last_use(make_pool: Any, state_dir: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "a b", strategy="round_robin")
    talk = Selection(session="talk")
    home = chosen(pool, 1, talk)[0]
    assert chosen(pool, 1, talk, now=START + HOUR) == [home]
    assert chosen(pool, 1, talk, now=START + 2 * HOUR) == [home]
    assert chosen(pool, 1, talk, now=START + 3 * HOUR + 1) != [home]


def test_lesson_16_conversations_take_bounded_memory() -> None:
    sessions = Sessions(3600, 100)
    for number in range(1000):
        sessions.put(f"s{number}" * 50, "a", START)
        sessions.put("kept", "b", START)
    assert len(sessions) == 100
    assert sessions.get("kept", START) == "b"
    assert sessions.get("s999" * 50, START) == "a"
    assert sessions.get("s1" * 50, START) is None
    assert max(len(key) for key in sessions._entries) <= 64
    sessions.put("new", "a", START + 3601)
    assert len(sessions) == 1, "what is over is dropped as time goes by"


# --- reload -----------------------------------------------------------------------------------------------------------


async def test_new_settings_apply_and_live_state_stays(make_pool: Any, state_dir: Any, clock: Clock) -> None:
    pool = await pool_of(make_pool, state_dir, "a b")
    a = pool.accounts["a"]
    a.in_flight += 3
    used(a, 0.5)
    provider = type(pool.provider)
    settings = pool.provider.settings.model_copy(
        update={"strategy": "priority", "accounts": {"b": AccountSettings(priority=1)}}
    )
    await pool.reconfigure(provider(settings))
    assert pool.accounts["a"] is a
    assert a.in_flight == 3
    assert chosen(pool, 2) == ["a", "a"]
    await pool.reconfigure(provider(settings.model_copy(update={"strategy": "round_robin", "accounts": {}})))
    await pool.reconfigure(provider(settings.model_copy(update={"strategy": "least_used", "accounts": {}})))
    used(pool.accounts["b"], 0.5)
    assert chosen(pool, 3) == ["b"] * 3, "what is in flight still counts"
    a.in_flight -= 3
    assert a.in_flight == 0
    assert "a" in chosen(pool, 2)


async def test_accounts_that_come_and_go(make_pool: Any, state_dir: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "a")
    put(state_dir, credential_file(), "b")
    assert set(chosen(pool, 4)) == {"a"}
    await pool.load()
    assert set(chosen(pool, 4)) == {"a", "b"}
    gone = pool.accounts["a"]
    gone.in_flight += 1
    (state_dir / "demo" / "a" / "demo.json").unlink()
    await pool.load()
    assert set(chosen(pool, 4)) == {"b"}
    gone.in_flight -= 1  # its last request ends after it has left
    assert chosen(pool, 1, Selection(pinned="a")) == ["-"]


async def test_the_same_login_twice_is_recognised_when_a_renewal_names_its_organization(
    make_pool: Any, state_dir: Any
) -> None:
    pool = await pool_of(make_pool, state_dir, "a b")
    used(pool.accounts["a"], 0.7)
    put(state_dir, credential_file("x", organization="org"), "a")
    put(state_dir, credential_file("y", organization="org"), "b")
    await pool.load()
    assert pool.accounts["b"].limits["5h"].used == 0.7


async def test_a_login_of_somebody_else_starts_with_its_own_limits(make_pool: Any, state_dir: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "a@org")
    a = pool.accounts["a"]
    a.apply(Verdict(Action.COOL_DOWN, until=START + 3600), START)
    put(state_dir, credential_file("other", organization="other"), "a")
    await pool.load()
    assert chosen(pool, 1) == ["a"]
    assert a.limits == {}


# --- the index decides as the pure function does ----------------------------------------------------------------------

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
