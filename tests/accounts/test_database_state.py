"""The state of accounts over several nodes: what one learns, the others know, and none undoes another's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aimux.accounts import Account, AccountPool, FileVault, PoolOptions, Selection
from aimux.accounts.database_state import DatabaseState, merged
from aimux.accounts.database_vault import DatabaseVault
from aimux.plugin import AccountSettings, Action, LimitWindow, Verdict
from aimux.storage import Database
from tests.accounts.support import FILE, HOUR, START, Clock, TokenServer, credential_file, provider, put
from tests.postgresql import Server

KEY = bytes(32)


class Node:
    """One aimux, with the accounts a and b."""

    def __init__(self, database: Database, state: DatabaseState, pool: AccountPool) -> None:
        self.database, self.state, self.pool = database, state, pool
        self.heard = asyncio.Event()
        database.subscribe("account_states", self.heard.set)

    @property
    def a(self) -> Account:
        return self.pool.accounts["a"]

    async def told(self) -> None:
        """Until it has heard of what another one just wrote, and taken it over."""
        async with asyncio.timeout(5):
            await self.heard.wait()
        self.heard.clear()
        await self.state.flush()


Start = Callable[[], Awaitable[Node]]


@pytest.fixture
async def start(database_url: str | None, tmp_path: Path, clock: Clock) -> AsyncIterator[Start]:
    databases = []

    async def node() -> Node:
        databases.append(database := await Database.open(database_url, tmp_path / "state"))
        state = await DatabaseState.open(database)
        vault = files(tmp_path / "credentials")
        pool = AccountPool(provider(), vault, TokenServer(clock), options=PoolOptions(clock=clock, state=state))
        await pool.load()
        return Node(database, state, pool)

    yield node
    for database in databases:
        await database.close()


def files(folder: Path) -> FileVault:
    """The same files for all: here it is not about where credentials lie."""
    for name in ("a", "b"):
        if not (folder / "demo" / name).exists():
            put(folder, credential_file(f"access-{name}"), name)
    return FileVault(folder)


async def test_what_one_learns_all_know_and_it_outlives_them(start: Start, clock: Clock) -> None:
    one, other = await start(), await start()
    full = LimitWindow("5h", 1.0, START + HOUR, status="rejected")
    one.a.observe([full, LimitWindow("7d", 0.3, START + 90 * HOUR)], START)
    one.a.apply(Verdict(Action.COOL_DOWN, "five hours used up", until=START + HOUR), START)
    one.pool.accounts["b"].disable()
    await one.state.flush()
    await other.told()
    assert other.a.state(clock()).reason == "five hours used up"
    assert other.a.limits["5h"] == full
    assert other.pool.accounts["b"].state(clock()).status == "disabled"
    assert other.pool.select(Selection(), clock()) is None
    third = await start()
    assert [a.state(clock()).status for a in third.pool.accounts.values()] == ["cooling", "disabled"]


async def test_parked_and_enabled_again(start: Start, clock: Clock) -> None:
    one, other = await start(), await start()
    one.a.park("the organization is disabled", "ask its owner")
    await one.state.flush()
    await other.told()
    assert other.a.state(clock()).remedy == "ask its owner"
    other.a.enable()
    await other.state.flush()
    one.heard.clear()
    await one.state.flush()
    async with asyncio.timeout(5):
        while one.a.parked is not None:
            await one.state.flush()
            await asyncio.sleep(0.02)
    assert one.a.state(clock()).status == "healthy"


async def test_a_cooldown_that_one_proves_wrong_ends_for_all(start: Start, clock: Clock) -> None:
    one, other = await start(), await start()
    one.a.observe([LimitWindow("5h", 1.0, START + HOUR, status="rejected")], START)
    one.a.apply(Verdict(Action.COOL_DOWN, until=START + HOUR), START)
    await one.state.flush()
    await other.told()
    clock.pass_(5)
    other.a.observe([LimitWindow("5h", 0.1, START + 5 * HOUR)], clock())
    await other.state.flush()
    one.heard.clear()
    async with asyncio.timeout(5):
        while one.a.state(clock()).status != "healthy":
            await one.state.flush()
            await asyncio.sleep(0.02)
    assert one.a.limits["5h"].used == 0.1


async def test_settings_count_on_every_node_beside_what_others_change(start: Start, clock: Clock) -> None:
    one, other = await start(), await start()
    one.pool.assign("a", AccountSettings(weight=3, groups=("ci",)))
    other.pool.accounts["b"].disable()
    await one.state.flush()
    await other.told()
    assert other.a.settings == AccountSettings(weight=3, groups=("ci",))
    assert other.pool.select(Selection(groups=frozenset({"dev"})), START) is None
    await other.state.flush()
    third = await start()
    assert third.a.settings == one.a.settings
    assert third.pool.accounts["b"].disabled
    third.pool.assign("a", AccountSettings())
    await third.state.flush(now=True)
    async with asyncio.timeout(5):
        while one.a.settings != AccountSettings():
            await one.state.flush()
            await asyncio.sleep(0.02)
    assert one.pool.select(Selection(groups=frozenset({"dev"})), START) is one.a


async def test_changes_at_the_same_time_are_merged(start: Start, clock: Clock) -> None:
    one, other = await start(), await start()
    one.a.disable()
    other.a.apply(Verdict(Action.COOL_DOWN, "used up", until=START + HOUR, model="big"), START)
    await asyncio.gather(one.state.flush(), other.state.flush())
    async with asyncio.timeout(5):
        while not all(node.a.disabled and "big" in node.a.quota.cooldowns for node in (one, other)):
            await asyncio.gather(one.state.flush(), other.state.flush())
            await asyncio.sleep(0.02)


async def test_what_only_counts_up_is_written_now_and_then(start: Start, clock: Clock) -> None:
    one = await start()
    one.a.observe([LimitWindow("7d", 0.3, START + 90 * HOUR)], START)
    await one.state.flush()
    one.a.observe([LimitWindow("7d", 0.4, START + 90 * HOUR)], START)
    await one.state.flush()

    async def used() -> float:
        node = await start()
        return node.a.limits["7d"].used or 0.0

    assert await used() == 0.3
    await one.state.flush(now=True)
    assert await used() == 0.4


async def test_an_account_that_is_removed_leaves_no_state(start: Start, clock: Clock) -> None:
    one = await start()
    one.a.disable()
    await one.state.flush()
    await one.pool.remove("a")
    await one.state.flush()
    assert (await DatabaseState.open(one.database)).entry("demo", "a") == {}


async def test_one_that_can_t_be_read_here_is_nobody_else_s_affair(start: Start, clock: Clock) -> None:
    one, other = await start(), await start()
    one.a.park("its file is broken", unreadable=True)
    await one.state.flush(now=True)
    assert (await DatabaseState.open(one.database)).entry("demo", "a") == {}
    other.a.disable()
    await other.state.flush()
    await one.told()
    assert one.a.parked is not None
    assert one.a.disabled


async def test_while_the_server_is_away_nothing_is_forgotten(
    postgresql: Server, tables_url: str, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    database = await Database.open(tables_url, tmp_path)
    await DatabaseVault(database, [KEY]).write("demo", "a", FILE, credential_file(), expect=None)
    state = await DatabaseState.open(database)
    options = PoolOptions(clock=clock, state=state)
    pool = AccountPool(provider(), DatabaseVault(database, [KEY]), TokenServer(clock), options=options)
    await pool.load()
    await asyncio.to_thread(postgresql.stop)
    try:
        pool.select(Selection(), clock())  # of which the others are told now and then
        for _ in range(2):
            await state.flush()
            await state.flush()
            clock.pass_(60)
        pool.accounts["a"].disable()
        await state.flush()
        assert caplog.text.count("not shared for now") == 1
    finally:
        await asyncio.to_thread(postgresql.start)
    await state.flush()
    assert state.trouble == ""
    assert (await DatabaseState.open(database)).entry("demo", "a") == {"disabled": True, "last_used": START}
    await database.close()


# --- merging ---------------------------------------------------------------------------------------------------------

_limit: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"name": st.sampled_from("pq"), "used": st.integers(1, 9)}
)
_cooldown = st.fixed_dictionaries({"until": st.integers(0, 9), "since": st.just(0), "reason": st.just("")})
_entry = st.fixed_dictionaries(
    {},
    optional={
        "disabled": st.just(True),
        "parked": st.fixed_dictionaries({"reason": st.sampled_from("xy"), "fingerprint": st.just("f")}),
        "last_used": st.integers(1, 9),
        "cooldowns": st.dictionaries(st.sampled_from("mn"), _cooldown, min_size=1),
        "limits": st.lists(_limit, unique_by=lambda limit: limit["name"], min_size=1).map(
            lambda limits: sorted(limits, key=lambda limit: limit["name"])
        ),
    },
)


def sorted_limits(entry: dict[str, Any]) -> dict[str, Any]:
    limits = {"limits": sorted(entry["limits"], key=lambda limit: limit["name"])} if "limits" in entry else {}
    return entry | limits


_unhurried = settings(suppress_health_check=[HealthCheck.too_slow])  # making an entry takes long on a busy machine


@_unhurried
@given(_entry, _entry)
def test_who_changed_nothing_gets_what_the_other_says(base: dict[str, Any], new: dict[str, Any]) -> None:
    last = max((e["last_used"] for e in (base, new) if "last_used" in e), default=None)
    expected = {**new, **({"last_used": last} if last else {})}
    assert sorted_limits(merged(base, base, new)) == expected
    assert sorted_limits(merged(base, new, base)) == expected


@_unhurried
@given(_entry, _entry, _entry)
def test_merging_again_changes_nothing(base: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    once = merged(base, ours, theirs)
    assert sorted_limits(merged(theirs, once, theirs)) == sorted_limits(once)


def test_what_is_merged_keeps_its_order() -> None:
    names = ["5h", "7d", "7d_oi", "7d_opus", "primary", "secondary", "month", "overage"]
    old = [{"name": name, "used": 0.1} for name in names]
    new = [{"name": name, "used": 0.2} for name in names]
    none: list[dict[str, object]] = []
    cases = (none, old, none), (none, none, old), (old, new, old), (old, old, new), (old, new, old[1:])
    for base, ours, theirs in cases:
        result = merged(*({"limits": limits} if limits else {} for limits in (base, ours, theirs)))
        assert [limit["name"] for limit in result["limits"]] == names
