"""Which accounts can be chosen: organizations, groups, pins, limits, what was tried, and the last resort."""

from __future__ import annotations

import collections
from dataclasses import replace
from typing import Any

import pytest

from aimux.accounts import Selection
from aimux.accounts.pool import AGAIN_SECONDS
from aimux.plugin import AccountSettings, Action, Verdict
from tests.accounts.support import START, chosen, pool_of, used


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


async def test_a_reserved_account_serves_nobody_else_whatever_happens(make_pool: Any, state_dir: Any) -> None:
    accounts = {
        "paid": AccountSettings(groups=("ci", "dev")),
        "lab": AccountSettings(groups=("dev",)),
    }
    pool = await pool_of(make_pool, state_dir, "paid lab free", accounts=accounts)
    everybody = Selection(conversation="c")
    ci, dev = (Selection(groups=frozenset({name})) for name in ("ci", "dev"))
    assert set(chosen(pool, 6)) == {"paid", "lab", "free"}
    pool.accounts["free"].disable()
    pool.accounts["lab"].disable()
    assert chosen(pool, 1, everybody) == ["paid"], "the conversation is at home there now"
    pool.reserve(frozenset({"ci"}))
    for other in (everybody, dev, Selection(groups=frozenset())):
        assert chosen(pool, 1, other) == ["-"]
        assert chosen(pool, 1, replace(other, pinned="paid")) == ["-"]
        assert pool.last_resort(other, START) is None
        assert pool.retry_after(other, START) is None
        assert "paid" not in {account.name for account in pool.candidates(other)}
    assert chosen(pool, 1, ci) == ["paid"]
    assert chosen(pool, 1, Selection(groups=frozenset({"dev", "ci"}))) == ["paid"]
    pool.reserve(frozenset())
    assert chosen(pool, 1, dev) == ["paid"]


async def test_a_single_account_can_be_reserved_too(make_pool: Any, state_dir: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "paid", accounts={"paid": AccountSettings(groups=("ci",))})
    assert chosen(pool, 1) == ["paid"]
    pool.reserve(frozenset({"ci"}))
    assert chosen(pool, 1) == ["-"]
    assert chosen(pool, 1, Selection(groups=frozenset({"ci"}))) == ["paid"]


async def test_pinned(make_pool: Any, state_dir: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "a b")
    used(pool.accounts["b"], 0.9)
    pin = Selection(pinned="b", conversation="s")
    assert chosen(pool, 2, pin) == ["b", "b"]
    assert chosen(pool, 1, Selection(conversation="s")) == ["a"], "a pin doesn't move the conversation"
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
    pool.accounts["b"].enable(START)
    assert "b" in chosen(pool, 3, Selection("m")), "a person knows better, whatever took it out"


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


async def test_a_sole_cooling_account_is_still_asked(make_pool: Any, state_dir: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "a")
    pool.accounts["a"].apply(Verdict(Action.COOL_DOWN, until=START + 60), START)
    assert pool.select(Selection(), START) is None
    assert pool.last_resort(Selection(), START) is pool.accounts["a"]
    assert pool.retry_after(Selection(), START + 10) == 50
    assert not pool.ready(START)
    assert pool.ready(START + 60)


async def test_a_long_limit_is_asked_about_again_before_its_time(make_pool: Any, state_dir: Any) -> None:
    """Vendors begin limits anew early, and people buy more: whoever is free soonest does not tell of the others."""
    pool = await pool_of(make_pool, state_dir, "a b c")
    a, b, c = pool.accounts.values()
    a.apply(Verdict(Action.COOL_DOWN, until=START + 3600), START)
    b.apply(Verdict(Action.COOL_DOWN, until=START + 86400), START + 1)
    c.apply(Verdict(Action.COOL_DOWN, until=START + 7200), START + 2)
    now = START + AGAIN_SECONDS
    assert pool.last_resort(Selection(), now - 1) is a
    assert pool.last_resort(Selection(), now + 2) is a
    a.apply(Verdict(Action.COOL_DOWN, until=START + 3600), now + 2)
    assert pool.last_resort(Selection(), now + 2) is b
    b.apply(Verdict(Action.COOL_DOWN, until=START + 86400, model="big"), now + 3)
    assert [pool.last_resort(Selection(model), now + 3) for model in ("big", "small")] == [c, b]
    c.keep_off(now + 60, now, "its renewal fails")
    assert pool.last_resort(Selection("big"), now + 3) is a


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
