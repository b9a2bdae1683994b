"""The ledger's requests once more, over accounts that are not there."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aimux.limits.plan import PATIENCE, Asked, Plan, Window, replay
from aimux.plugin.settings import AccountSettings

HOUR = 3600.0
FIVE_HOURS = Window("5h", 5 * HOUR, 100.0)
USUAL = AccountSettings()


def asked(at: float, units: float = 10.0, user: str = "ann", conversation: str = "", seconds: float = 10.0) -> Asked:
    return Asked(1_795_694_400.0 + at, user, conversation, "m", units, seconds)


def run(requests: list[Asked], count: int, **how: Any) -> Plan:
    accounts = {f"a{number}": USUAL for number in range(count)}
    return replay(requests, accounts, [FIVE_HOURS], **{"strategy": "least_used"} | how)


def test_what_fits_is_served_and_idle_accounts_show() -> None:
    plan = run([asked(number * 60.0, units=1.0) for number in range(50)], 2, strategy="priority")
    assert (plan.requests, plan.waited, plan.refused) == (50, 0, 0)
    first, second = plan.accounts
    assert (first.requests, second.requests) == (50, 0)
    assert plan.hours - len(second.busy_hours) == plan.hours
    assert first.fullest["5h"] < 0.51


def test_what_is_too_much_for_one_account_is_not_for_two() -> None:
    """A window holds ten of them, and twenty come within an hour: ten are refused, for it is hours until the reset."""
    load = [asked(number * 120.0) for number in range(20)]
    one, two = run(load, 1), run(load, 2)
    assert (one.refused, one.accounts[0].cooled) == (10, 1)
    assert (two.refused, two.waited) == (0, 0)
    assert [account.requests for account in two.accounts] == [10, 10]
    assert [(account.fullest["5h"], account.cooled) for account in two.accounts] == [(pytest.approx(1.0), 1)] * 2


def test_a_window_begins_with_a_request_and_ends_after_its_length() -> None:
    full = [asked(number * 60.0) for number in range(10)]
    # The first request was over ten seconds after the start: so is the window, five hours later.
    early, late = asked(5 * HOUR - PATIENCE / 2), asked(5 * HOUR + 60)
    plan = run([*full, early, late], 1)
    assert (plan.refused, plan.waited) == (0, 1)
    assert PATIENCE / 2 < plan.waited_seconds < PATIENCE


def test_who_comes_while_another_waits_for_a_window_waits_for_it_too() -> None:
    full = [asked(number * 60.0) for number in range(10)]
    plan = run([*full, *[asked(5 * HOUR + 10.0 - early) for early in (300.0, 200.0, 100.0)]], 1)
    assert (plan.refused, plan.waited, plan.waited_seconds) == (0, 3, 600.0)


HALF_AN_HOUR = Window("30m", 1800.0, 100.0)
LOAD = st.lists(
    st.tuples(st.integers(0, 400), st.sampled_from([5.0, 10.0, 30.0, 70.0]), st.integers(1, 400)), max_size=30
)


@given(LOAD)
@settings(max_examples=50)
def test_a_queue_is_served_in_the_order_of_time(load: list[tuple[int, float, int]]) -> None:
    """As whoever looks at one account each second sees it."""
    at, requests = 0, []
    for gap, units, seconds in load:
        at += gap
        requests.append(asked(at, units, seconds=seconds))
    queue, running = list(requests), list[Asked]()
    used = resets = waited = refused = 0.0
    start, second = asked(0).at, 0
    while queue or running:
        now = start + second
        for one in [one for one in running if one.seconds == now]:  # its end, here
            running.remove(one)
            if now >= resets:
                used, resets = 0.0, now + 1800
            used += one.units
        for one in [one for one in queue if one.at <= now]:
            if used >= 100.0 and now < resets:
                if one.at + PATIENCE == now:
                    queue.remove(one)
                    refused += 1
                continue
            queue.remove(one)
            waited += now - one.at
            running.append(one._replace(seconds=now + one.seconds))
        second += 1
    plan = replay(requests, {"a": USUAL}, [HALF_AN_HOUR], strategy="least_used")
    assert (plan.requests, plan.refused, plan.waited_seconds) == (len(requests), refused, waited)


def test_a_conversation_stays_where_it_is() -> None:
    load = [asked(number * 30.0, units=1.0, conversation=f"c{number % 2}") for number in range(20)]
    assert sorted(account.requests for account in run(load, 2).accounts) == [10, 10]
    single = [asked(number * 30.0, units=1.0, conversation="c") for number in range(20)]
    assert sorted(account.requests for account in run(single, 2).accounts) == [0, 20]


def test_turns_are_taken_by_weight() -> None:
    accounts = {"light": AccountSettings(weight=1), "heavy": AccountSettings(weight=3)}
    load = [asked(number * 30.0, units=0.1) for number in range(40)]
    plan = replay(load, accounts, [FIVE_HOURS], strategy="round_robin")
    assert [account.requests for account in plan.accounts] == [10, 30]


def test_who_waits_into_another_hour_is_served_in_one_that_counts() -> None:
    """A window of half an hour is full at once, and who comes next waits for the next one: into another hour."""
    load = [asked(2000.0, units=100.0), asked(3500.0)]
    plan = replay(load, {"a": USUAL}, [Window("30m", 1800.0, 100.0)], strategy="least_used")
    (account,) = plan.accounts
    assert (plan.requests, plan.waited, plan.refused) == (2, 1, 0)
    assert (plan.hours, len(account.busy_hours)) == (2, 2)


def test_with_fair_share_what_is_used_is_put_down_to_who_used_it() -> None:
    ann = [asked(number * 60.0, units=2.0, user="ann", seconds=1.5) for number in range(40)]
    bob = [asked(number * 60.0 + 1, units=0.00001, user="bob", seconds=1.5) for number in range(40)]
    plan = run(sorted([*ann, *bob]), 1, fair_share=True, weights={"ann": 9.0})
    assert (plan.requests, plan.not_their_share) == (80, 0)


def test_with_fair_share_who_uses_all_waits_for_others() -> None:
    """Bob takes everything as fast as he can; ann comes now and then, and is never refused."""
    bob = [asked(number * 20.0, units=1.0, user="bob") for number in range(300)]
    ann = [asked(number * 600.0 + 7, units=1.0, user="ann") for number in range(10)]
    load = sorted([*bob, *ann])
    without, shared = run(load, 1), run(load, 1, fair_share=True)
    assert without.not_their_share == 0
    assert without.refused > 0
    assert shared.not_their_share > 0
    assert run(load, 1, fair_share=True, weights={"bob": 9.0}).not_their_share < shared.not_their_share
