"""What is open on one node counts on the others, for as long as that node lives."""

from __future__ import annotations

import asyncio
import time

import pytest
from sqlalchemy import select, text

from aimux.limits import Lease, Refusal
from aimux.limits.exchange import HEARTBEAT, LOCK
from aimux.limits.keeper import LimitKeeper
from aimux.limits.shares import LATELY_SECONDS
from aimux.storage import StorageError
from aimux.storage.schema.limits import limit_shares

from .nodes import Node, Time, ask, exchange, reserve, used
from .support import ALICE


async def test_what_is_open_on_one_node_counts_on_the_others(node: Node) -> None:
    here, there = await node(concurrent_requests=3), await node(concurrent_requests=3)
    leases = [reserve(here) for _ in range(2)]
    await exchange(here, there)
    one = reserve(there)
    assert isinstance(one, Lease)
    assert not ask(there), "two are open here, and one there"
    [standing] = there.limits.standings(ALICE, time.time())
    assert standing.used == 3
    for lease in leases:
        assert isinstance(lease, Lease)
        here.limits.settle(lease, 1, 1, 0)
    await exchange(here, there)
    assert ask(there)


async def test_a_rate_is_one_for_all_nodes(node: Node) -> None:
    nodes = [await node(requests_per_minute=12) for _ in range(3)]
    served = 0
    for _ in range(10):
        for keeper in nodes:
            served += ask(keeper)
        await exchange(*nodes)
    assert 12 <= served <= 12 + 2, "what the others do between two exchanges is not known"
    assert not any(ask(keeper) for keeper in nodes)


async def test_what_is_asked_for_while_the_database_answers_counts_in_the_minute(node: Node) -> None:
    """A round takes as long as another node's, which it waits for."""
    here, there = await node(requests_per_minute=3), await node(requests_per_minute=3)
    now = time.time()
    assert here.exchange is not None
    async with there.database.write() as connection:
        await connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
        waiting = asyncio.create_task(here.exchange.round(now))
        await asyncio.sleep(0)
        assert [isinstance(reserve(here, now=now + 0.5), Lease) for _ in range(3)] == [True] * 3
    await waiting
    assert isinstance(reserve(here, now=now + 1), Refusal)
    await exchange(here, there, now=now + 1)
    assert isinstance(reserve(there, now=now + 1), Refusal)


async def test_what_a_node_that_died_had_open_counts_for_half_a_minute(node: Node, passed: Time) -> None:
    dead, stays = await node(concurrent_requests=1), await node(concurrent_requests=1)
    assert isinstance(reserve(dead), Lease)
    await exchange(dead, stays)
    assert not ask(stays)
    passed.seconds += LATELY_SECONDS + 1
    await exchange(stays)
    assert ask(stays)


async def test_what_stays_open_is_told_again(node: Node, passed: Time) -> None:
    busy, other = await node(concurrent_requests=1), await node(concurrent_requests=1)
    assert isinstance(reserve(busy), Lease)
    assert busy.exchange is not None
    await exchange(busy)
    before = await heard_at(busy)
    passed.seconds += 1
    await exchange(busy)
    assert await heard_at(busy) == before
    passed.seconds += HEARTBEAT
    await exchange(busy)
    assert await heard_at(busy) > before
    await busy.exchange.close()
    await exchange(other)
    assert ask(other), "a node that stops has nothing open"


async def test_a_node_without_the_database_forgets_what_the_others_have_open(
    node: Node, passed: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, alone = await node(concurrent_requests=1), await node(concurrent_requests=1)
    assert isinstance(reserve(busy), Lease)
    await exchange(busy, alone)
    assert not ask(alone)
    assert alone.exchange is not None
    tried = asyncio.Event()

    async def away(now: float) -> None:
        passed.seconds += LATELY_SECONDS
        if passed.seconds > 2 * LATELY_SECONDS:
            tried.set()
        raise StorageError("it is away")

    monkeypatch.setattr(alone.exchange, "round", away)
    running = asyncio.create_task(alone.exchange.run())
    await asyncio.wait_for(tried.wait(), 10)
    assert ask(alone)
    running.cancel()


async def heard_at(keeper: LimitKeeper) -> int:
    async with keeper.database.read() as connection:
        found: int = (await connection.execute(select(limit_shares.c.heard_at))).scalar_one()
        return found


async def test_what_is_under_way_for_long_counts_as_long_as_its_node_lives(node: Node, passed: Time) -> None:
    busy, other = await node(), await node()
    assert isinstance(reserve(busy), Lease)
    await exchange(busy, other)
    reserved = used(busy)
    for _ in range(40):
        passed.seconds += 4
        await exchange(busy, other)
        assert used(other) == reserved
