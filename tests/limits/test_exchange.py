"""Nodes on one PostgreSQL share every budget: it is used up, and not more than used up."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from aimux.config.limits import Limits as Section
from aimux.limits import Limits, Policy, Refusal, Who
from aimux.limits.keeper import LimitKeeper
from aimux.limits.shares import Claims
from aimux.metering.calendar import Calendar
from aimux.metering.prices import Prices
from aimux.metering.rows import Flattener
from aimux.metering.store import LedgerStore
from aimux.storage import Database
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

    async def start(amount: int = 60_000) -> LimitKeeper:
        database = await Database.open(postgresql_url, tmp_path / f"state{len(opened)}")
        limits = Limits(Policy(), UTC, claims=Claims())
        keeper = LimitKeeper(database, limits, Section.model_validate({"default": {"tokens_per_month": amount}}))
        opened.append(keeper)
        await exchange(keeper)
        await keeper.refresh()
        return keeper

    yield start
    for keeper in opened:
        await keeper.database.close()


def ask(keeper: LimitKeeper, who: Who = ALICE) -> bool:
    """One request from its beginning to its end; False: refused."""
    lease = keeper.limits.reserve(f"r-{next(IDS)}", who, "claude", "m", SIZE, time.time())
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
    leases = [first.limits.reserve(f"r-{next(IDS)}", ALICE, "claude", "m", SIZE, time.time()) for _ in range(8)]
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
    rows = [Flattener("node", Prices()).row(record(time.time(), 175)) for _ in range(7)]
    await store.write(rows, int(time.time() * 1000))
    later = await node()
    [standing] = later.limits.standings(ALICE, time.time())
    assert standing.used == 7 * TOKENS, "five are the first node's, and two were used before anybody counted"
    await exchange(first, later)
    [standing] = later.limits.standings(ALICE, time.time())
    assert standing.used == 7 * TOKENS


async def test_a_node_without_the_database_goes_on_with_what_it_has(node: Node) -> None:
    keeper, other = await node(), await node()
    assert ask(keeper)
    await exchange(keeper, other)
    served = sum(ask(keeper) for _ in range(100))
    assert 10 <= served <= 60_000 // 2 // TOKENS
