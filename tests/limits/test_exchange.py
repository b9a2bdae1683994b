"""Nodes on one PostgreSQL share every budget: it is used up, and not more than used up."""

from __future__ import annotations

import asyncio
import time

from sqlalchemy import text

from aimux.config.limits import Limits as Section
from aimux.limits import Lease, Refusal, Who
from aimux.limits.exchange import IDLE_SECONDS, LOCK
from aimux.limits.history import History
from aimux.limits.rules import ANYTHING, Key, Owner, Scope
from aimux.limits.shares import LATELY_SECONDS, Place
from aimux.limits.sums import place_of
from aimux.metering.flattener import Flattener
from aimux.metering.prices import Prices
from aimux.metering.rows import Row
from aimux.storage.schema.limits import limit_shares
from tests.limits.support import record

from .nodes import TOKENS, UTC, Node, Time, ask, exchange, requests, reserve, used, write
from .support import ALICE


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
    last = reserve(nodes[0])
    assert isinstance(last, Refusal)
    assert last.free_at == last.standing.resets_at


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


async def test_whoever_has_room_and_a_piece_that_is_too_small_is_told_of_seconds(node: Node) -> None:
    nodes = [await node() for _ in range(3)]
    await exchange(*nodes)
    refused = next(one for one in (reserve(nodes[0]) for _ in range(200)) if isinstance(one, Refusal))
    now = time.time()
    assert refused.standing.used < refused.standing.amount / 2
    assert refused.free_at <= now + 1
    await exchange(*nodes)
    assert isinstance(reserve(nodes[0]), Lease)
    while refused.free_at != refused.standing.resets_at:
        while isinstance(found := reserve(nodes[0]), Lease):
            pass
        refused = found
        await exchange(*nodes)
        assert isinstance(reserve(nodes[0]), Lease) or refused.free_at == refused.standing.resets_at, "it is wanted"


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


async def test_what_a_node_does_not_use_for_a_while_is_the_others(node: Node, passed: Time) -> None:
    idle, busy = await node(30_000), await node(30_000)
    assert ask(idle)
    await write(idle, requests(1))
    assert isinstance(reserve(idle), Lease)
    await exchange(idle, busy)
    served = 2
    for _ in range(40):
        served += ask(busy)
        await exchange(busy)
    assert served * TOKENS < 27_000, "the idle one has a part of it"
    passed.seconds += IDLE_SECONDS + 1
    await exchange(idle)
    for _ in range(10):
        served += ask(busy)
        await exchange(busy)
    assert 30_000 - TOKENS <= served * TOKENS <= 30_000 + TOKENS, "but for what is used or under way there"


async def test_what_is_long_over_is_forgotten(node: Node) -> None:
    """Windows some days after their end, and what has no window as soon as nobody believes it any longer."""
    first, now, day, name = await node(), int(time.time() * 1000), 86_400_000, 'a", "tokens_per_day" \\'
    old, young = list[Place](), list[Place]()
    silent = place_of(Key(Owner("user", "silent"), "requests_per_minute", ANYTHING), 0)
    for period, days in (("day", 3), ("week", 10), ("month", 40)):
        for limit in (f"tokens_per_{period}", f"cost_per_{period}"):
            key = Key(Owner("user", name), limit, Scope("claude", "x_per_month"))
            old.append(place_of(key, now / 1000 - (days + 1) * 86400))
            young.append(place_of(key, now / 1000 - (days - 1) * 86400))
    young.append(silent._replace(counter=silent.counter.replace("silent", "heard")))
    young.append(Place("of another version", now - 39 * day))
    old.append(Place("of another version", now - 41 * day))
    async with first.database.write() as connection:
        for place in (*old, *young, silent):
            heard = now - 2 * 3_600_000 if place == silent else now
            row = {**place._asdict(), "node": "other", "share": 0, "used": 1, "gone": 1, "heard_at": heard}
            await connection.execute(limit_shares.insert().values(row))
    await node()
    async with first.database.read() as connection:
        left = {Place(row.counter, row.start) for row in await connection.execute(limit_shares.select())}
    assert left & {*old, *young, silent} == {*young}


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


async def test_a_node_without_the_database_goes_on_with_what_it_has(node: Node) -> None:
    keeper, other = await node(), await node()
    assert ask(keeper)
    await exchange(keeper, other)
    served = sum(ask(keeper) for _ in range(100))
    assert 10 <= served <= 60_000 // 2 // TOKENS


async def test_of_any_number_of_budgets_is_told_at_once(node: Node) -> None:
    """Those of everybody who asked while the database was away, say. PostgreSQL's statements take 32,767 values."""
    six = {f"{what}_per_{period}": 10**6 for what in ("tokens", "cost") for period in ("day", "week", "month")}
    here, there = await node(**six), await node(**six)
    everybody = [Who(f"user-{number}") for number in range(1000)]
    assert all(ask(here, who) for who in everybody)
    await exchange(here, there)
    rows = Flattener("node", Prices()).rows([record(time.time(), TOKENS // 4, user=who.user) for who in everybody])
    await write(here, [*map(Row, rows)])
    assert there.exchange is not None
    there.exchange.hear_all()
    await exchange(there)
    now = time.time()
    assert {there.limits.standings(who, now)[0].used for who in everybody} == {TOKENS}


async def test_what_a_round_that_is_cancelled_had_to_tell_the_next_one_tells(node: Node) -> None:
    here, there = await node(), await node()
    assert ask(here)
    assert here.exchange is not None
    async with there.database.write() as connection:
        await connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
        waiting = asyncio.create_task(here.exchange.round(time.time()))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    await exchange(here, there)
    assert used(here, there) == [TOKENS, TOKENS]


async def test_a_limit_that_was_set_again_is_told_of_once(node: Node, passed: Time) -> None:
    """What was under way under the limit before is over, and nobody asks for its piece any longer."""
    here, there = await node(), await node()
    lease = reserve(here)
    assert isinstance(lease, Lease)
    here.limits.cancel(lease)
    await exchange(here)
    here.limits.adopt(here.limits.policy, UTC, time.time(), History())
    passed.seconds += 10
    assert ask(here)
    await exchange(here)
    passed.seconds += 6
    await exchange(here, there)
    assert used(here, there) == [TOKENS, TOKENS]
