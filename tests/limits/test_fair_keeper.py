"""What fair share knows of times and of nodes that a process has not seen."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from aimux.accounts.account import Account
from aimux.limits import FairShare
from aimux.limits.fair_keeper import FairKeeper
from aimux.metering.calendar import Calendar
from aimux.metering.flattener import Flattener
from aimux.metering.prices import Prices
from aimux.metering.rows import Row
from aimux.metering.store import LedgerStore
from aimux.metering.windows import Sampler
from aimux.plugin.types import LimitWindow
from aimux.storage import Database
from tests.limits.support import record
from tests.waiting import until

from .nodes import HOUR, UTC


class Node:
    """One with an account `work`, of which 60 of 100 are used."""

    def __init__(self, database: Database, *, tells: bool = False, used: float = 0.6) -> None:
        self.database = database
        self.account = Account("work", "claude")
        self.fair = FairShare(on=True, tells=tells)
        self.keeper = FairKeeper(database, self.fair, lambda: [self.account])
        self.see(used)

    def see(self, used: float) -> None:
        self.account.quota.observe([LimitWindow("5h", used, time.time() // 60 * 60 + 3 * HOUR)], time.time())

    def used(self, *users: str) -> list[float]:
        """Of the window, by each."""
        now = time.time()
        return [round(share.used, 3) for u in users for share in self.fair.shares(self.account.quota, u, 1.0, now)]

    def ask(self, user: str, units: float, weight: float = 1.0) -> None:
        now = time.time()
        self.fair.asked(self.account.quota, user, weight, now)
        self.fair.metered(self.account.quota, user, units, now)


Start = Callable[..., Awaitable[Node]]


@pytest.fixture
async def start(database_url: str | None, tmp_path: Path) -> AsyncIterator[Start]:
    opened: list[Database] = []

    async def start(*, used: float = 0.6) -> Node:
        opened.append(await Database.open(database_url, tmp_path))
        return Node(opened[-1], tells=database_url is not None, used=used)

    yield start
    for database in opened:
        await database.close()


async def wrote(node: Node, user: str, tokens: int, ago: float, account: str = "work") -> None:
    one = record(time.time() - ago, tokens, user=user)
    one.account = account
    rows = [*map(Row, Flattener("node", Prices()).rows([one]))]
    await LedgerStore(node.database, Calendar(UTC)).write(rows, int(time.time() * 1000))


async def sampled(node: Node, ago: float) -> None:
    await Sampler(node.database, lambda: [node.account]).sample(int((time.time() - ago) * 1000))


async def test_who_used_the_window_is_known_after_a_restart(start: Start) -> None:
    before = await start()
    await sampled(before, 2 * HOUR)
    await wrote(before, "ann", 3000, 1.5 * HOUR)
    await wrote(before, "bob", 1000, HOUR)
    await wrote(before, "bob", 9000, 6 * HOUR)  # of the window before
    await wrote(before, "bob", 9000, HOUR, account="other")
    after = await start()
    await after.keeper.round(time.time())
    assert after.used("ann", "bob", "eve") == [0.45, 0.15, 0.0]
    now, quota = time.time(), after.account.quota
    for user in ("ann", "bob"):
        after.fair.asked(quota, user, 1.0, now)
    rooms = [share.room for user in ("ann", "bob") for share in after.fair.shares(quota, user, 1.0, now)]
    assert rooms == pytest.approx([0.05, 0.35]), "together half of the whole for each"


async def test_while_it_is_off_nothing_is_looked_for_and_then_what_was_used_meanwhile_is(start: Start) -> None:
    node = await start()
    node.fair.on = False
    await sampled(node, HOUR)
    await wrote(node, "ann", 3000, HOUR / 2)
    await node.keeper.round(time.time())
    assert node.used("ann") == [0.0]
    node.fair.on = True
    await node.keeper.round(time.time())
    assert node.used("ann") == [0.6]


async def test_a_window_that_nobody_sampled_or_that_tells_no_end_is_nobodys(start: Start) -> None:
    node = await start()
    await wrote(node, "ann", 3000, HOUR)
    node.account.quota.observe([LimitWindow("credits", 0.5, None)], time.time())
    await node.keeper.round(time.time())
    assert node.used("ann") == [0.0, 0.0]


@pytest.fixture
async def nodes(tables_url: str, tmp_path: Path) -> AsyncIterator[list[Node]]:
    made = [Node(await Database.open(tables_url, tmp_path), tells=True) for _ in range(2)]
    yield made
    for node in made:
        await node.database.close()


async def test_who_is_active_at_another_node_has_a_share_here(nodes: list[Node]) -> None:
    one, other = nodes
    for node in nodes:
        await node.keeper.round(time.time())
    one.ask("ann", 10)
    one.ask("ann", 20, weight=3.0)
    other.ask("bob", 10)
    await one.keeper.round(time.time())
    await other.keeper.round(time.time())
    for node in nodes:
        await until(lambda node=node: people(node) == {"ann", "bob"})  # type: ignore[misc]
        node.see(0.8)
    assert one.used("ann", "bob") == other.used("ann", "bob") == [0.15, 0.05]


def people(node: Node) -> set[str]:
    """Whose requests wait for the window to move."""
    return {user for window in node.account.quota.shared.values() for user in window._pending}


async def test_a_team_that_asks_at_once_is_told_of_in_several_notices(nodes: list[Node]) -> None:
    one, other = nodes
    users = {f"{number:03}" + 90 * "é" for number in range(60)}  # 540 bytes each in JSON
    for user in users:
        one.ask(user, 10)
    await one.keeper.round(time.time())
    await until(lambda: people(other) == users)
    await one.keeper.round(time.time())  # nothing is told twice
    one.ask("last", 10)
    await one.keeper.round(time.time())
    await until(lambda: "last" in people(other))
    other.see(0.8)
    assert other.used("last", min(users)) == [pytest.approx(0.2 / 61, abs=0.001)] * 2


@pytest.mark.parametrize(
    "text",
    [
        '{"fair"',
        '{"fair": 3}',
        '{"fair": [["claude", "work"]]}',
        '{"fair": [["a", "b", "c", 1, 2]]}',
        '{"fair": [["claude", "work", "eve", 0, 2]]}',
        '{"fair": [["claude", "work", "eve", "much", 2]]}',
        '{"fair": [["claude", "work", "eve", 1, -2]]}',
    ],
)
async def test_what_is_no_news_changes_nothing(nodes: list[Node], text: str) -> None:
    one, other = nodes
    await one.database.tell(text)
    one.ask("ann", 10)
    await one.keeper.round(time.time())
    await until(lambda: people(other) == {"ann"})
