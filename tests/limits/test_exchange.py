"""Nodes on one PostgreSQL share every budget: it is used up, and not more than used up."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select

from aimux.config.limits import Limits as Section
from aimux.limits import Lease, Limits, Policy, Refusal, Who
from aimux.limits.exchange import HEARTBEAT
from aimux.limits.keeper import LimitKeeper
from aimux.limits.shares import LATELY_SECONDS, Claims
from aimux.metering.calendar import Calendar
from aimux.metering.flattener import Flattener
from aimux.metering.prices import Prices
from aimux.metering.rows import Row
from aimux.metering.store import LedgerStore
from aimux.storage import Database
from aimux.storage.schema.limits import limit_shares
from tests.limits.test_keeper import record

UTC = ZoneInfo("UTC")
ALICE = Who("alice", "laptop", ("research",))
IDS = itertools.count()
SIZE, TOKENS = 2000, 700

Node = Callable[..., Awaitable[LimitKeeper]]


@pytest.fixture
async def node(postgresql_url: str, tmp_path: Path) -> AsyncIterator[Node]:
    """Starts a node. Its rounds are the test's."""
    opened: list[LimitKeeper] = []

    async def start(amount: int = 60_000, **others: int) -> LimitKeeper:
        database = await Database.open(postgresql_url, tmp_path / f"state{len(opened)}")
        limits = Limits(Policy(), UTC, claims=Claims())
        section = Section.model_validate({"default": others or {"tokens_per_month": amount}})
        keeper = LimitKeeper(database, limits, section)
        opened.append(keeper)
        await exchange(keeper)
        await keeper.refresh()
        return keeper

    yield start
    for keeper in opened:
        await keeper.database.close()


def reserve(keeper: LimitKeeper, who: Who = ALICE, now: float | None = None) -> Lease | Refusal:
    limits, now = keeper.limits, time.time() if now is None else now
    return limits.reserve(f"r-{next(IDS)}", limits.plan(limits.terms(who), "claude", "m", now), SIZE, now)


def ask(keeper: LimitKeeper, who: Who = ALICE) -> bool:
    """One request from its beginning to its end; False: refused."""
    lease = reserve(keeper, who)
    if isinstance(lease, Refusal):
        return False
    keeper.limits.settle(lease, TOKENS - 200, 200, 0)
    return True


async def exchange(*nodes: LimitKeeper) -> None:
    for keeper in nodes:
        assert keeper.exchange is not None
        await keeper.exchange.round(time.time())


async def test_three_nodes_use_a_budget_up_and_no_more(node: Node) -> None:
    nodes = [await node() for _ in range(3)]
    served = 0
    for _ in range(60):
        for keeper in nodes:
            for _ in range(3):
                served += ask(keeper)
        await exchange(*nodes)
    assert 60_000 - 3 * TOKENS <= served * TOKENS <= 60_000 + 3 * TOKENS
    assert not any(ask(keeper) for keeper in nodes)
    told = {one.used for keeper in nodes for one in keeper.limits.standings(ALICE, time.time())}
    assert told == {served * TOKENS}, "each knows what all have used"


async def test_one_who_moves_to_another_node_is_not_refused_there(node: Node) -> None:
    here, there = await node(), await node()
    for _ in range(20):
        assert ask(here)
        await exchange(here, there)
    assert [ask(there) for _ in range(3)] == [True] * 3


async def test_requests_side_by_side_have_room_from_the_first_on(node: Node) -> None:
    first, _ = await node(), await node()
    leases = [reserve(first) for _ in range(8)]
    assert not [one for one in leases if isinstance(one, Refusal)]


async def test_what_a_node_leaves_when_it_stops_is_the_others(node: Node) -> None:
    gone, stays = await node(9000), await node(9000)
    assert ask(gone)
    await exchange(gone, stays)
    assert gone.exchange is not None
    await gone.exchange.close()
    served = 0
    for _ in range(40):
        served += ask(stays)
        await exchange(stays)
    assert (served + 1) * TOKENS >= 9000 - TOKENS


async def test_a_node_that_comes_later_knows_what_was_used_and_counts_it_once(node: Node) -> None:
    first = await node()
    for _ in range(5):
        assert ask(first)
        await exchange(first)
    store = LedgerStore(first.database, Calendar(UTC))
    rows = [*map(Row, Flattener("node", Prices()).rows(record(time.time(), 175) for _ in range(7)))]
    await store.write(rows, int(time.time() * 1000))
    later = await node()
    [standing] = later.limits.standings(ALICE, time.time())
    assert standing.used == 7 * TOKENS, "five are the first node's, and two were used before anybody counted"
    await exchange(first, later)
    [standing] = later.limits.standings(ALICE, time.time())
    assert standing.used == 7 * TOKENS


async def test_what_a_killed_node_left_on_the_disk_counts_on_all_nodes_and_once(node: Node) -> None:
    rows = [*map(Row, Flattener("node", Prices()).rows(record(time.time(), 175) for _ in range(7)))]
    finds, knows, stranger = await node(), await node(), await node()
    assert ask(finds)
    assert ask(knows)
    await exchange(finds, knows)
    finds.left(rows)
    await LedgerStore(finds.database, Calendar(UTC)).write(rows, int(time.time() * 1000))
    await exchange(finds, knows, stranger)
    await stranger.refresh()
    later = await node()
    for keeper in (finds, knows, stranger, later):
        [standing] = keeper.limits.standings(ALICE, time.time())
        assert standing.used == 9 * TOKENS


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


async def test_what_a_node_that_died_had_open_counts_for_half_a_minute(node: Node) -> None:
    dead, stays = await node(concurrent_requests=1), await node(concurrent_requests=1)
    assert isinstance(reserve(dead), Lease)
    await exchange(dead, stays)
    assert not ask(stays)
    assert stays.exchange is not None
    later = time.time() + LATELY_SECONDS + 1
    await stays.exchange.round(later)
    assert not isinstance(reserve(stays, now=later), Refusal)


async def test_what_stays_open_is_told_again(node: Node) -> None:
    busy, other = await node(concurrent_requests=1), await node(concurrent_requests=1)
    assert isinstance(reserve(busy), Lease)
    assert busy.exchange is not None
    await busy.exchange.round(time.time())
    before = await heard_at(busy)
    await busy.exchange.round(time.time() + 1)
    assert await heard_at(busy) == before
    await busy.exchange.round(time.time() + HEARTBEAT + 1)
    assert await heard_at(busy) > before
    await busy.exchange.close()
    await exchange(other)
    assert ask(other), "a node that stops has nothing open"


async def heard_at(keeper: LimitKeeper) -> int:
    async with keeper.database.read() as connection:
        found: int = (await connection.execute(select(limit_shares.c.heard_at))).scalar_one()
        return found


async def test_a_node_without_the_database_goes_on_with_what_it_has(node: Node) -> None:
    keeper, other = await node(), await node()
    assert ask(keeper)
    await exchange(keeper, other)
    served = sum(ask(keeper) for _ in range(100))
    assert 10 <= served <= 60_000 // 2 // TOKENS
