"""A conversation stays on its account."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from aimux.accounts import AccountPool, Selection
from aimux.accounts.conversations import Conversations, Stay
from aimux.accounts.pool import CACHE_SECONDS
from aimux.plugin import AccountSettings, Action, Verdict
from tests.accounts.support import HOUR, START, chosen, pool_of


def answered(pool: AccountPool, account: str, conversation: str = "talk") -> None:
    found = pool.accounts[account]
    assert found.credential is not None
    pool.served(Selection(conversation=conversation), found, found.credential)


def at_home(pool: AccountPool) -> tuple[Selection, str]:
    """A conversation, and the account that has answered it."""
    talk = Selection(conversation="talk")
    home = chosen(pool, 1, talk)[0]
    answered(pool, home)
    return talk, home


async def test_a_conversation_stays_and_leaves_an_account_that_cannot_serve(make_pool: Any, state_dir: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "a b c", strategy="round_robin")
    talk, home = at_home(pool)
    chosen(pool, 7)
    assert chosen(pool, 5, talk) == [home] * 5
    pool.accounts[home].apply(Verdict(Action.COOL_DOWN, until=START + CACHE_SECONDS + 60), START)
    second = chosen(pool, 1, talk)[0]
    assert second != home
    assert chosen(pool, 3, talk, now=START + CACHE_SECONDS + 61) == [second] * 3, "and doesn't jump back"
    pool.accounts[second].park("revoked")
    assert chosen(pool, 1, talk)[0] != second


async def test_it_is_lent_for_as_long_as_its_cache_lives(make_pool: Any, state_dir: Any) -> None:
    """A limit of a minute would otherwise cost the whole prompt's cache, twice."""
    pool = await pool_of(make_pool, state_dir, "a b c d", strategy="round_robin")
    talk, home = at_home(pool)
    pool.accounts[home].apply(Verdict(Action.COOL_DOWN, until=START + 60), START)
    [host] = {*chosen(pool, 5, talk)}
    assert host != home, "one and the same for all of the minute"
    answered(pool, host)
    pool.accounts[host].park("revoked")
    assert chosen(pool, 1, talk)[0] not in {home, host}
    assert chosen(pool, 3, talk, now=START + 61) == [home] * 3


async def test_it_stays_with_whoever_it_is_lent_to_under_another_name(make_pool: Any, state_dir: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "a b c d", strategy="round_robin")
    talk, home = at_home(pool)
    pool.accounts[home].apply(Verdict(Action.COOL_DOWN, until=START + 60), START)
    host = chosen(pool, 1, talk)[0]
    await pool.rename(host, "renamed")
    assert chosen(pool, 3, talk) == ["renamed"] * 3
    await pool.rename(home, "home")
    assert chosen(pool, 3, talk) == ["renamed"] * 3
    assert chosen(pool, 3, talk, now=START + 61) == ["home"] * 3


async def test_one_overload_does_not_move_a_conversation(make_pool: Any, state_dir: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "a b")
    talk, home = at_home(pool)
    other = chosen(pool, 1, replace(talk, exclude=frozenset({home})))[0]
    assert other != home
    answered(pool, other)
    assert chosen(pool, 3, talk) == [home] * 3


async def test_a_conversation_is_at_home_with_whoever_answers_it_first(make_pool: Any, state_dir: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "a b")
    talk = Selection(conversation="talk")
    first = chosen(pool, 1, talk)[0]
    other = chosen(pool, 1, replace(talk, exclude=frozenset({first})))[0]
    answered(pool, other)
    assert chosen(pool, 3, talk) == [other] * 3


@pytest.mark.parametrize("leave", ["parked", "disabled", "gone", "another group's"])
async def test_it_moves_where_its_home_is_out_of_service(make_pool: Any, state_dir: Any, leave: str) -> None:
    pool = await pool_of(make_pool, state_dir, "a b c")
    talk = Selection(conversation="talk", groups=frozenset({"x"}))
    home = chosen(pool, 1, talk)[0]
    answered(pool, home)
    match leave:
        case "parked":
            pool.accounts[home].park("revoked")
        case "disabled":
            pool.accounts[home].disable()
        case "gone":
            await pool.remove(home)
        case _:
            pool.accounts[home].settings = AccountSettings(groups=("y",))
    second = chosen(pool, 1, talk)[0]
    assert second != home
    if home in pool.accounts:
        pool.accounts[home].enable()
        pool.accounts[home].settings = AccountSettings()
    assert chosen(pool, 3, talk) == [second] * 3


async def test_a_conversation_is_forgotten_an_hour_after_its_last_use(make_pool: Any, state_dir: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "a b", strategy="round_robin")
    talk = Selection(conversation="talk")
    home = chosen(pool, 1, talk)[0]
    assert chosen(pool, 1, talk, now=START + HOUR) == [home]
    assert chosen(pool, 1, talk, now=START + 2 * HOUR) == [home]
    assert chosen(pool, 1, talk, now=START + 3 * HOUR + 1) != [home]


def test_conversations_take_bounded_memory() -> None:
    conversations = Conversations(100)
    for number in range(1000):
        conversations.put(f"s{number}" * 50, Stay("a", START))
        conversations.put("kept", Stay("b", START))
    assert len(conversations) == 100
    assert conversations.get("kept", START) == Stay("b", START)
    assert conversations.get("s999" * 50, START) == Stay("a", START)
    assert conversations.get("s1" * 50, START) is None
    assert max(len(key) for key in conversations._entries) <= 64
    conversations.put("new", Stay("a", START + 3601))
    assert len(conversations) == 1, "what is over is dropped as time goes by"
