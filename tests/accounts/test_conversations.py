"""A conversation stays on its account."""

from __future__ import annotations

from typing import Any

from aimux.accounts import Selection
from aimux.accounts.conversations import Conversations
from aimux.plugin import Action, Verdict
from tests.accounts.support import HOUR, START, chosen, pool_of


async def test_lesson_10_a_conversation_stays_and_leaves_an_account_that_cannot_serve(
    make_pool: Any, state_dir: Any
) -> None:
    pool = await pool_of(make_pool, state_dir, "a b c", strategy="round_robin")
    talk = Selection(conversation="talk")
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
    home = chosen(pool, 1, Selection(conversation="talk"))[0]
    other = chosen(pool, 1, Selection(conversation="talk", exclude=frozenset({home})))[0]
    assert chosen(pool, 2, Selection(conversation="talk")) == [other] * 2


async def test_a_conversation_is_forgotten_an_hour_after_its_last_use(make_pool: Any, state_dir: Any) -> None:
    pool = await pool_of(make_pool, state_dir, "a b", strategy="round_robin")
    talk = Selection(conversation="talk")
    home = chosen(pool, 1, talk)[0]
    assert chosen(pool, 1, talk, now=START + HOUR) == [home]
    assert chosen(pool, 1, talk, now=START + 2 * HOUR) == [home]
    assert chosen(pool, 1, talk, now=START + 3 * HOUR + 1) != [home]


def test_lesson_16_conversations_take_bounded_memory() -> None:
    conversations = Conversations(3600, 100)
    for number in range(1000):
        conversations.put(f"s{number}" * 50, "a", START)
        conversations.put("kept", "b", START)
    assert len(conversations) == 100
    assert conversations.get("kept", START) == "b"
    assert conversations.get("s999" * 50, START) == "a"
    assert conversations.get("s1" * 50, START) is None
    assert max(len(key) for key in conversations._entries) <= 64
    conversations.put("new", "a", START + 3601)
    assert len(conversations) == 1, "what is over is dropped as time goes by"
