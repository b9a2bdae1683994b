"""Nodes share budgets also where a clock is wrong."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import update

from aimux.limits import Lease, Refusal
from aimux.limits.shares import LATELY_SECONDS
from aimux.storage.schema.limits import limit_shares

from .nodes import HOUR, TOKENS, Node, Time, ask, exchange, requests, reserve, used, write


@pytest.mark.parametrize("off", [-HOUR, HOUR])
async def test_a_node_whose_clock_is_an_hour_wrong_counts_what_the_others_have_open(
    node: Node, off: float, caplog: pytest.LogCaptureFixture
) -> None:
    wrong, right = await node(concurrent_requests=1), await node(concurrent_requests=1)
    now = time.time()
    one = reserve(right)
    assert isinstance(one, Lease)
    await exchange(right)
    await exchange(wrong, now=now + off)
    assert isinstance(reserve(wrong, now=now + off), Refusal)
    right.limits.settle(one, 1, 1, 0)
    await exchange(right)
    await exchange(wrong, now=now + off)
    assert isinstance(reserve(wrong, now=now + off), Lease)
    await exchange(wrong, now=now + off)
    await exchange(right)
    assert not ask(right)
    (said,) = (one for one in caplog.messages if "this machine's clock" in one)
    assert ("ahead of the database's" if off > 0 else "behind the database's") in said, "once"


async def test_a_clock_that_is_set_back_does_not_keep_a_node_from_telling(node: Node, passed: Time) -> None:
    busy, other = await node(concurrent_requests=1), await node(concurrent_requests=1)
    assert isinstance(reserve(busy), Lease)
    await exchange(busy, other)
    for _ in range(10):
        passed.seconds += 5
        await exchange(busy, now=time.time() - HOUR)
        await exchange(other)
        assert not ask(other)


async def test_a_clock_that_is_months_ahead_takes_nothing_from_the_others(node: Node) -> None:
    first, wrong = await node(), await node()
    assert ask(first)
    await write(first, requests(1))
    await exchange(first)
    later = await node()
    await exchange(wrong, now=time.time() + 100 * 86400)
    await exchange(later)
    latest = await node()
    assert used(later, latest) == [TOKENS] * 2


async def test_nodes_hear_each_other_while_the_databases_clock_is_set_back(node: Node, passed: Time) -> None:
    here, there = await node(concurrent_requests=1), await node(concurrent_requests=1)
    assert ask(here)
    await exchange(here, there)
    async with here.database.write() as connection:  # all of that was an hour later, by a clock that is right again
        await connection.execute(update(limit_shares).values(heard_at=limit_shares.c.heard_at + int(HOUR * 1000)))
    await exchange(here, there)
    one = reserve(here)
    assert isinstance(one, Lease)
    await exchange(here, there)
    assert not ask(there)
    here.limits.settle(one, 1, 1, 0)
    await exchange(here, there)
    assert isinstance(reserve(there), Lease)
    await exchange(there, here)
    assert not ask(here)
    passed.seconds += LATELY_SECONDS + 1
    await exchange(here)
    assert ask(here), "one that is dead grows old all the same"
