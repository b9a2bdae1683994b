"""Limits that lie in the database, on both engines: they hold at once, everywhere, and a restart forgets nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from aimux import background
from aimux.config.limits import Allowances, GroupAllowances, UserAllowances
from aimux.config.limits import Limits as Section
from aimux.limits import Lease, Limits, Policy, Refusal, Who, history, stored
from aimux.limits.keeper import LimitKeeper
from aimux.limits.rules import Owner
from aimux.limits.settlement import Settlement
from aimux.metering.calendar import Calendar
from aimux.metering.flattener import Flattener
from aimux.metering.prices import Prices
from aimux.metering.record import RequestRecord
from aimux.metering.repricing import reprice
from aimux.metering.rows import Row
from aimux.metering.store import LedgerStore
from aimux.metering.tariff import Tariff
from aimux.people import audit
from aimux.people.audit import Actor
from aimux.storage import Database, StorageError
from aimux.storage.schema import limits as schema
from tests.limits.support import ALICE, record, use, used
from tests.waiting import until

UTC = ZoneInfo("UTC")
DAY = 86_400.0
BOSS = Actor("boss", "10.0.0.1")
Node = Callable[..., Awaitable[LimitKeeper]]


@pytest.fixture
async def node(database_url: str | None, tmp_path: Path) -> AsyncIterator[Node]:
    """Starts a node; arguments are the section of its configuration."""
    opened: list[LimitKeeper] = []

    async def start(**section: object) -> LimitKeeper:
        database = await Database.open(database_url, tmp_path / "state")
        keeper = LimitKeeper(database, Limits(Policy(), UTC), Section.model_validate(section))
        opened.append(keeper)
        await keeper.start()
        return keeper

    yield start
    for keeper in opened:
        await keeper.close()
        await keeper.database.close()


def amounts(keeper: LimitKeeper, who: Who = ALICE) -> dict[str, float]:
    return {f"{one.owner} {one.limit}": one.amount for one in keeper.limits.standings(who, time.time())}


async def test_what_one_node_sets_holds_on_the_other_and_is_in_the_audit_log(node: Node) -> None:
    here, there = await node(), await node()
    allowances = UserAllowances(tokens_per_day=500, models={"opus*": {"cost_per_day": 2.5}})
    await stored.put(here.database, BOSS, Owner("user", "alice"), allowances)
    await until(lambda: len(amounts(there)) == 2 and len(amounts(here)) == 2)
    assert amounts(there) == {"user:alice tokens_per_day": 500, "user:alice cost_per_day": 2.5}
    await stored.put(there.database, BOSS, Owner("user", "alice"), UserAllowances(requests_per_minute=3))
    await until(lambda: amounts(here) == {"user:alice requests_per_minute": 3})
    assert await stored.remove(here.database, BOSS, Owner("user", "alice"))
    assert not await stored.remove(here.database, BOSS, Owner("user", "alice"))
    await until(lambda: not amounts(there))
    entries = [(one.action, one.target, one.before, one.after) async for one in audit.entries(here.database)]
    first = {"tokens_per_day": 500, "models": {"opus*": {"cost_per_day": 2.5}}}
    assert entries == [
        ("limits.set", "user:alice", None, first),
        ("limits.set", "user:alice", first, {"requests_per_minute": 3}),
        ("limits.remove", "user:alice", {"requests_per_minute": 3}, None),
    ]


async def test_a_fault_while_limits_are_read_does_not_end_the_reading(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here = await node()
    real, faults = stored.read, [KeyError("odd")]

    async def read(database: Database, now: float) -> stored.Stored:
        if faults:
            raise faults.pop()
        return await real(database, now)

    monkeypatch.setattr(stored, "read", read)
    monkeypatch.setattr(background, "PAUSES", (0.0, 0.0))
    await stored.put(here.database, BOSS, Owner("user", "alice"), UserAllowances(tokens_per_day=500))
    await until(lambda: not faults)
    await stored.put(here.database, BOSS, Owner("user", "alice"), UserAllowances(tokens_per_day=400))
    await until(lambda: amounts(here) == {"user:alice tokens_per_day": 400})
    assert "a fault in keeping up with limits" in caplog.text


async def test_what_a_newer_node_has_set_does_not_keep_the_rest_from_holding(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    here = await node()
    newer = {"tokens_per_day": 500, "tokens_per_year": 9, "models": {"m": {"joules": 1, "cost_per_day": 2}, "n": 3}}
    values = {"since": 0, "until": 1 << 50, "given_by": "boss", "amount": 1}
    async with here.database.write(stored.TOPIC) as connection:
        await connection.execute(
            schema.limits.insert().values(kind="user", name="alice", allowances=newer, updated_at=0)
        )
        row = {"id": "grant_1", "kind": "user", "name": "alice", "limit": "tokens_per_year"}
        await connection.execute(schema.grants.insert().values(**row, **values))
    await until(lambda: amounts(here) == {"user:alice tokens_per_day": 500, "user:alice cost_per_day": 2})
    (told,) = [one.getMessage() for one in caplog.records if "another version" in one.getMessage()]
    assert sorted(told.partition(": ")[2].split(", ")) == [
        "user:alice models.m.joules",
        "user:alice models.n",
        "user:alice tokens_per_year",
        "user:alice tokens_per_year",
    ]
    await here.refresh(recount=True)
    assert caplog.text.count("another version") == 1, "said once"


async def test_groups_and_tokens_have_limits_there_as_well(node: Node) -> None:
    keeper = await node()
    research = GroupAllowances(cost_per_month=100, each=Allowances(tokens_per_day=70))
    await stored.put(keeper.database, BOSS, Owner("group", "research"), research)
    await stored.put(keeper.database, BOSS, Owner("token", "laptop"), Allowances(concurrent_requests=2))
    await until(lambda: len(amounts(keeper)) == 3)
    assert amounts(keeper) == {
        "group:research cost_per_month": 100,
        "user:alice tokens_per_day": 70,
        "token:laptop concurrent_requests": 2,
    }


async def test_what_the_configuration_says_counts(node: Node) -> None:
    keeper = await node(users={"alice": {"tokens_per_day": 10}})
    await stored.put(keeper.database, BOSS, Owner("user", "alice"), UserAllowances(tokens_per_day=99))
    await stored.put(keeper.database, BOSS, Owner("user", "bob"), UserAllowances(tokens_per_day=99))
    await until(lambda: bool(amounts(keeper, Who("bob"))))
    assert amounts(keeper) == {"user:alice tokens_per_day": 10}
    await keeper.reconfigure(Section())
    assert amounts(keeper) == {"user:alice tokens_per_day": 99}


async def test_a_grant_holds_everywhere_until_its_end(node: Node) -> None:
    section = {"default": {"cost_per_day": 5}}
    here, there = await node(**section), await node(**section)
    now = time.time()
    await stored.give(here.database, BOSS, Owner("user", "alice"), "cost_per_day", 20 * 10**9, now + 3600)
    await stored.give(here.database, BOSS, Owner("user", "alice"), "cost_per_day", 1 * 10**9, now - 1)
    await until(lambda: amounts(there) == {"user:alice cost_per_day": 25})
    [given] = there.stored.given
    assert (given.by, given.grant.until) == ("boss", pytest.approx(now + 3600, abs=0.01))
    [later] = there.limits.standings(ALICE, now + 3601)
    assert later.amount == 5 or later.resets_at != there.limits.standings(ALICE, now)[0].resets_at


class TwoDollars(Prices):
    """What any request costs."""

    def of_record(self, record: RequestRecord) -> int:
        return 2 * 10**9


class Unknown(Prices):
    """Nothing has a price."""

    def of_record(self, record: RequestRecord) -> None:
        return None


async def write(database: Database, *records: RequestRecord, prices: Prices | None = None) -> None:
    store = LedgerStore(database, Calendar(UTC))
    rows = [*map(Row, Flattener("node", prices or TwoDollars()).rows(records))]
    await store.write(rows, int(time.time() * 1000))


async def test_a_restart_forgets_nothing(node: Node) -> None:
    now = time.time()
    first = await node()
    await write(first.database, record(now, 10), record(now, 5, model="sonnet"), record(now - 40 * 86400, 7777))
    await write(first.database, record(now, 100, user="bob"))
    section = {
        "default": {"tokens_per_day": 10**6, "cost_per_month": 50, "models": {"opus*": {"tokens_per_week": 10**6}}},
        "groups": {"research": {"tokens_per_month": 10**6}},
    }
    again = await node(**section)
    assert used(again) == {
        "user:alice tokens_per_day": 60,
        "user:alice cost_per_month": 4,
        "user:alice tokens_per_week": 40,
        "group:research tokens_per_month": 460,
    }
    strict = (await node(default={"tokens_per_day": 50})).limits
    assert isinstance(strict.reserve(strict.plan(strict.terms(ALICE), "claude", "m", now), 10, now), Refusal)


async def test_tokens_that_took_each_others_place_have_one_budget(node: Node) -> None:
    now, here, there = time.time(), await node(), await node()
    first, second, third = (Who("alice", token) for token in ("laptop", "second", "third"))
    await stored.put(here.database, BOSS, Owner("token", "laptop"), Allowances(tokens_per_day=1000, overage="forbid"))
    await write(here.database, record(now, 10))
    for old, new in ((first, second), (second, third)):
        assert await stored.pass_on(here.database, BOSS, Owner("token", old.token), Owner("token", new.token))
    for keeper in (here, there, await node()):
        await until(lambda keeper=keeper: set(amounts(keeper, third)) == {"token:third tokens_per_day"})  # type: ignore[misc]
        for who in (first, second, third):
            assert used(keeper, who) == {"token:third tokens_per_day": 40}
            assert keeper.limits.policy.forbids("overage", who, "claude", "m")
    lease = here.limits.reserve(here.limits.plan(here.limits.terms(first), "claude", "m", now), 10, now)
    assert isinstance(lease, Lease)
    here.limits.settle(lease, 200, 60, 0)
    assert used(here, third) == {"token:third tokens_per_day": 300}
    assert not await stored.remove(here.database, BOSS, Owner("token", "laptop")), "it has none of its own"
    await stored.put(here.database, BOSS, Owner("token", "laptop"), Allowances(tokens_per_day=50))
    await until(lambda: used(here, first) == {"token:laptop tokens_per_day": 40})


async def test_a_restart_counts_what_has_no_price_as_it_was_counted(node: Node) -> None:
    now = time.time()
    section = {"default": {"cost_per_day": 50}}
    first = await node(**section)
    limits, asked = first.limits, record(now, 1000)
    lease = asked.lease = limits.reserve(limits.plan(limits.terms(ALICE), "claude", "opus-5", now), 10, now)
    assert not isinstance(lease, Refusal)
    Settlement(limits, lambda _record: None)(asked)
    assert used(first) == {"user:alice cost_per_day": 0.04}  # 3,000 tokens in, 1,000 out
    left = Row(next(iter(Flattener("node", Unknown()).rows([record(now, 1000)]))))
    first.left([left])
    assert used(first) == {"user:alice cost_per_day": 0.08}
    await write(first.database, asked, record(now, 1000), prices=Unknown())
    assert used(await node(**section)) == {"user:alice cost_per_day": 0.08}
    await write(first.database, record(now, 1000))  # at 2 $, in the same hour
    assert used(await node(**section)) == {"user:alice cost_per_day": pytest.approx(2.08)}


async def test_a_restart_counts_what_was_priced_under_another_time_zone(node: Node) -> None:
    """Its hours begin at half past: there the price is in an hour of its own, in which nothing was asked."""
    section = {"default": {"cost_per_day": 50}}
    first = await node(**section)
    await write(first.database, record(time.time() // 3600 * 3600 + 2700, 1000), prices=Unknown())
    prices = Prices()
    rates = {"input": 10**6, "output": 2 * 10**6, "cache_read": 0, "cache_write": 10**6}
    prices.tariffs["claude", "opus-5"] = Tariff.of_json([[0, {"": [[0, rates]]}]])
    assert await reprice(first.database, Calendar(ZoneInfo("Asia/Kolkata")), prices, 0) == 1
    assert used(await node(**section)) == {"user:alice cost_per_day": pytest.approx(0.044)}


async def test_a_restart_goes_by_the_models_that_were_asked_for(node: Node) -> None:
    """As limits do while aimux runs: vendors answer with dated names, and `models` gives others."""
    now = time.time()
    first = await node()
    dated = record(now, 10, model="sonnet-4-5", served="sonnet-4-5-20250929")
    await write(first.database, dated, record(now, 5, model="fast", served="haiku"), record(now, 2, model="haiku"))
    models = {"sonnet-4-5": {"tokens_per_day": 10**6}, "fast": {"tokens_per_week": 10**6}, "h*": {"cost_per_day": 50}}
    again = await node(default={"models": models})
    assert used(again) == {
        "user:alice tokens_per_day": 40,
        "user:alice tokens_per_week": 20,
        "user:alice cost_per_day": 2,
    }


@pytest.mark.parametrize("owner", ["user:alice", "default"])
async def test_a_limit_that_comes_back_counts_what_was_used_without_it(node: Node, owner: str) -> None:
    now = time.time()
    own = {"tokens_per_day": 900}
    section: dict[str, object] = {"default": own} if owner == "default" else {"users": {"alice": own}}
    keeper = await node(**section)
    limits = keeper.limits
    use(limits, 40, ALICE, now=now)
    await write(keeper.database, record(now, 10))
    await keeper.reconfigure(Section())
    assert used(keeper) == {}
    await write(keeper.database, record(now, 50))
    await keeper.reconfigure(Section.model_validate(section))
    assert used(keeper) == {"user:alice tokens_per_day": 240}


@pytest.mark.parametrize("before", [True, False])
async def test_who_comes_to_a_group_has_used_what_he_has_used(
    node: Node, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Back to it, or for the first time: its limits for each member count all of the day."""
    monkeypatch.setattr("aimux.limits.keeper.RECOUNT_SECONDS", 0.01)
    keeper = await node(groups={"research": {"each": {"tokens_per_day": 10**6}}})
    limits, now, alone = keeper.limits, time.time(), Who("alice", "laptop")
    if before:
        use(limits, 40, ALICE, now=now)
        await write(keeper.database, record(now, 10))
    assert limits.terms(alone).free
    await write(keeper.database, record(now, 50))

    def counted() -> bool:
        limits.plan(limits.terms(ALICE), "claude", "m", now)  # the next request: what is read meanwhile may be too old
        return used(keeper) == {"user:alice tokens_per_day": 240 if before else 200}

    await until(counted)


class Clock:
    """That of the keeper, wrong by so much."""

    off = 0.0

    def time(self) -> float:
        return time.time() + self.off


@pytest.mark.parametrize("way", [(0, DAY, 2 * DAY, 0), (40 * DAY, 0), (-40 * DAY, 0, -40 * DAY, 0)])
async def test_a_clock_that_is_right_again_brings_back_what_was_used(
    node: Node, way: tuple[float, ...], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether it was wrong for a while or from the start on, and however far it went."""
    clock = Clock()
    clock.off = way[0]
    monkeypatch.setattr("aimux.limits.keeper.time", clock)
    monkeypatch.setattr("aimux.limits.keeper.LOOK_SECONDS", 0.01)
    keeper = await node(default={"tokens_per_day": 10**6, "tokens_per_month": 10**6})
    limits, now = keeper.limits, clock.time()
    use(limits, 40, ALICE, now=now)
    await write(keeper.database, record(time.time(), 10))
    for number, off in enumerate(way[1:], 1):
        clock.off = off
        await until(lambda: caplog.text.count("what is used was counted again") == number)  # noqa: B023
        limits.standings(ALICE, clock.time())
    assert used(keeper) == {"user:alice tokens_per_day": 40, "user:alice tokens_per_month": 40}


async def test_a_limit_that_comes_with_a_reload_counts_what_was_used_before_it(node: Node) -> None:
    keeper = await node(default={"tokens_per_day": 10**6})
    use(keeper.limits, 40, ALICE, now=time.time())
    await write(keeper.database, record(time.time(), 10))
    await keeper.reconfigure(Section.model_validate({"default": {"tokens_per_day": 10**6, "tokens_per_week": 500}}))
    assert used(keeper) == {"user:alice tokens_per_day": 40, "user:alice tokens_per_week": 40}


async def test_a_limit_that_comes_while_the_ledger_can_not_be_read_counts_what_was_used_once_it_can(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = await node(default={"tokens_per_day": 10**6})
    await write(keeper.database, record(time.time(), 10))
    real, away = history.read, asyncio.Event()

    async def read(*given: Any, **named: Any) -> history.History:
        if not away.is_set():
            raise StorageError("it is away")
        return await real(*given, **named)

    monkeypatch.setattr(history, "read", read)
    monkeypatch.setattr("aimux.limits.keeper.RECOUNT_SECONDS", 0.01)
    await keeper.reconfigure(Section.model_validate({"default": {"tokens_per_week": 500}}))
    assert used(keeper) == {"user:alice tokens_per_week": 0}
    away.set()
    await until(lambda: used(keeper) == {"user:alice tokens_per_week": 40})


async def test_what_was_left_counts_by_the_model_that_was_asked_for(node: Node) -> None:
    keeper = await node(default={"models": {"fast": {"tokens_per_day": 10**6}}})
    rows = Flattener("node", TwoDollars()).rows([record(time.time(), 10, model="fast", served="haiku")])
    keeper.left([*map(Row, rows)])
    assert used(keeper) == {"user:alice tokens_per_day": 40}


async def test_a_database_that_is_away_is_told_of_once(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is asked again each second."""
    keeper, asked = await node(), 0

    async def fail() -> None:
        nonlocal asked
        asked += 1
        raise StorageError("it is away")

    monkeypatch.setattr(keeper, "refresh", fail)
    for count in range(1, 4):
        keeper._stale.set()
        await until(lambda count=count: asked == count)  # type: ignore[misc]
    assert caplog.text.count("limits can't be read again") == 1
