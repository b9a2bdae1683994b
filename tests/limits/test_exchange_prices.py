"""Nodes that share a budget of costs, and requests whose price becomes known later."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from aimux.limits import Refusal
from aimux.limits.keeper import LimitKeeper
from aimux.metering.calendar import Calendar
from aimux.metering.flattener import Flattener
from aimux.metering.ledger import Ledger
from aimux.metering.prices import Prices
from aimux.metering.repricing import reprice
from aimux.metering.rows import Row
from aimux.metering.tariff import Tariff
from tests.waiting import until

from .nodes import UTC, Node, exchange, used, write
from .support import ALICE, record

ASSUMED, PRICED = 40_000_000, 4_000_000
"""What 4,000 tokens cost without a known price (nanodollars), and with it."""
RATES = {"input": 10**6, "output": 2 * 10**6, "cache_read": 0, "cache_write": 10**6}


class Written(Ledger):
    """Of which everything is in the database."""

    @asynccontextmanager
    async def still(self) -> AsyncIterator[Callable[[], list[Row] | None]]:
        yield list


async def serving(node: Node, folder: Path) -> LimitKeeper:
    """A node, with a ledger of its own."""
    one = await node(cost_per_day=50)
    ledger = Written(one.database, Flattener("node", Prices()), Calendar(UTC), folder, spill_limit=1 << 20, keep=1e9)
    keeper = LimitKeeper(one.database, one.limits, one.section, ledger)
    keeper.exchange = one.exchange
    return keeper


async def answered(keeper: LimitKeeper, times: int = 1) -> None:
    """Requests of a model whose price is not known, until the ledger has them."""
    for _ in range(times):
        now = time.time()
        limits = keeper.limits
        lease = limits.reserve(limits.plan(limits.terms(ALICE), "claude", "opus-5", now), 9, now)
        assert not isinstance(lease, Refusal)
        limits.settle(lease, 3000, 1000, ASSUMED)
        await write(keeper, [*map(Row, Flattener("node", Prices()).rows([record(now, 1000)]))])


async def price(keeper: LimitKeeper) -> None:
    prices = Prices()
    prices.tariffs["claude", "opus-5"] = Tariff.of_json([[0, {"": [[0, RATES]]}]])
    assert await reprice(keeper.database, Calendar(UTC), prices, 0, keeper.repriced)


async def test_it_counts_by_its_price_at_every_node_once_that_is_known(node: Node, tmp_path: Path) -> None:
    nodes = first, second, third = [await serving(node, tmp_path) for _ in range(3)]
    for keeper, times in ((first, 3), (second, 2), (third, 1)):
        await answered(keeper, times)
    await exchange(*nodes, *nodes)
    assert used(*nodes) == pytest.approx([6 * 0.04] * 3)
    await price(first)
    for keeper in nodes:
        await keeper.refresh(recount=True)
    await exchange(*nodes, *nodes)
    assert used(*nodes, await node(cost_per_day=50)) == pytest.approx([6 * 0.004] * 4)
    await answered(third)
    await exchange(*nodes, *nodes)
    assert used(*nodes, await node(cost_per_day=50)) == pytest.approx([6 * 0.004 + 0.04] * 4)


async def test_a_node_hears_that_another_one_knows_a_price(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aimux.limits.keeper.RECOUNT_SECONDS", 0.05)
    first, second = await serving(node, tmp_path), await serving(node, tmp_path)
    await answered(second)
    await second.start()
    try:
        await exchange(first)
        await price(first)
        await until(lambda: used(second) == pytest.approx([0.004]), 20)
    finally:
        await second.close()
