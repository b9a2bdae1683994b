"""Nodes on one PostgreSQL share every budget: it is used up, and not more than used up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select, update

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
from aimux.storage import Database, StorageError
from aimux.storage.schema.limits import limit_shares
from tests.limits.test_keeper import record

UTC = ZoneInfo("UTC")
ALICE = Who("alice", "laptop", ("research",))
SIZE, TOKENS = 2000, 700

HOUR = 3600.0

Node = Callable[..., Awaitable[LimitKeeper]]


class Time:
    """What passes, whatever clocks say: what a test says."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def passed() -> Time:
    return Time()


@pytest.fixture
async def node(postgresql_url: str, tmp_path: Path, passed: Time) -> AsyncIterator[Node]:
    """Starts a node. Its rounds are the test's."""
    opened: list[LimitKeeper] = []

    async def start(amount: int = 60_000, **others: int) -> LimitKeeper:
        database = await Database.open(postgresql_url, tmp_path / f"state{len(opened)}")
        limits = Limits(Policy(), UTC, claims=Claims(passed))
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
    return limits.reserve(limits.plan(limits.terms(who), "claude", "m", now), SIZE, now)


def ask(keeper: LimitKeeper, who: Who = ALICE) -> bool:
    """One request from its beginning to its end; False: refused."""
    lease = reserve(keeper, who)
    if isinstance(lease, Refusal):
        return False
    keeper.limits.settle(lease, TOKENS - 200, 200, 0)
    return True


async def exchange(*nodes: LimitKeeper, now: float | None = None) -> None:
    for keeper in nodes:
        assert keeper.exchange is not None
        await keeper.exchange.round(time.time() if now is None else now)


def used(*nodes: LimitKeeper) -> list[float]:
    return [one.used for keeper in nodes for one in keeper.limits.standings(ALICE, time.time())]


def requests(count: int) -> list[Row]:
    """As `ask` makes them."""
    records = (record(time.time(), TOKENS // 4) for _ in range(count))
    return [*map(Row, Flattener("node", Prices()).rows(records))]


async def write(keeper: LimitKeeper, rows: Sequence[Row], *, counted: bool = True) -> None:
    """A node's ledger writes them; not `counted`: before anybody had a limit."""
    store = LedgerStore(keeper.database, Calendar(UTC))
    store.beside = keeper.wrote if counted else None
    await store.write(rows, int(time.time() * 1000))


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
    await write(first, requests(2), counted=False)
    first = await node()
    for _ in range(5):
        assert ask(first)
        await exchange(first)
    await write(first, requests(3))
    later = await node()
    assert used(first, later) == [7 * TOKENS] * 2, "two were used before anybody counted, and two are not written yet"
    await write(first, requests(2))
    await exchange(first, later)
    latest = await node()
    assert used(first, later, latest) == [7 * TOKENS] * 3


async def test_who_comes_to_a_group_on_another_node_has_used_what_he_has_used(node: Node) -> None:
    here, there = await node(), await node()
    for keeper in (here, there):
        await keeper.reconfigure(
            Section.model_validate({"groups": {"research": {"each": {"tokens_per_month": 60_000}}}})
        )
    assert ask(here, Who("alice", "laptop"))
    await write(here, requests(1), counted=False)
    moved = asyncio.Event()
    there.limits.on_moved = moved.set
    assert ask(there)
    assert moved.is_set()
    await there.refresh(recount=True)
    assert used(there) == [2 * TOKENS]
    moved.clear()
    await exchange(here, there)
    assert ask(there)
    assert used(there) == [3 * TOKENS]
    assert not moved.is_set(), "he was seen"


async def test_a_node_that_comes_while_others_write_counts_nothing_twice(node: Node) -> None:
    """The ledger has five requests, of which the one that served them has not told anybody yet."""
    first = await node()
    for _ in range(5):
        assert ask(first)
    await write(first, requests(5))
    later = await node()
    assert used(later) == [5 * TOKENS]
    await exchange(first, later)
    assert used(first, later) == [5 * TOKENS] * 2


async def test_what_a_killed_node_left_on_the_disk_counts_on_all_nodes_and_once(node: Node) -> None:
    finds, knows, stranger = await node(), await node(), await node()
    assert ask(finds)
    assert ask(knows)
    await exchange(finds, knows)
    await write(finds, requests(1))
    await write(knows, requests(1))
    rows = requests(7)
    finds.left(rows)
    await write(finds, rows)
    await exchange(finds, knows, stranger)
    await stranger.refresh()
    later = await node()
    assert used(finds, knows, stranger, later) == [9 * TOKENS] * 4


async def test_of_a_node_that_was_killed_counts_what_the_ledger_has_or_gets(node: Node, passed: Time) -> None:
    dead, stays, finds = await node(), await node(), await node()
    for _ in range(4):
        assert ask(dead)
    assert isinstance(reserve(dead), Lease)
    assert isinstance(reserve(dead), Lease)
    await exchange(dead, stays, finds)
    known = used(stays)
    assert known == used(dead)
    assert known[0] > 4 * TOKENS
    lost, spilled = requests(3), requests(3)
    await write(dead, lost)
    # On its disk are the records of one that it had told of, and of two that nobody knows.
    later = await node()
    await exchange(stays, finds)
    passed.seconds += LATELY_SECONDS + 1
    await exchange(stays, finds, later)
    assert used(stays, finds, later) == [3 * TOKENS] * 3
    finds.left(spilled)
    await write(finds, spilled)
    await exchange(finds, stays, later)
    assert used(stays, finds, later) == [6 * TOKENS] * 3
    latest = await node()
    passed.seconds += LATELY_SECONDS + 1
    await exchange(stays, later, latest)
    assert used(stays, finds, later, latest) == [6 * TOKENS] * 4, "whoever found it may be dead by then"


async def test_what_is_under_way_for_long_counts_as_long_as_its_node_lives(node: Node, passed: Time) -> None:
    busy, other = await node(), await node()
    assert isinstance(reserve(busy), Lease)
    await exchange(busy, other)
    reserved = used(busy)
    for _ in range(40):
        passed.seconds += 4
        await exchange(busy, other)
        assert used(other) == reserved


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


# --- clocks that are wrong -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [-HOUR, HOUR])
async def test_a_node_whose_clock_is_an_hour_wrong_counts_what_the_others_have_open(node: Node, off: float) -> None:
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
