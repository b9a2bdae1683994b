"""What is used is counted again while a process goes on: exactly, where its ledger knows what it lacks."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from aimux.config.limits import Limits as Section
from aimux.limits import Limits, Policy, Refusal, history
from aimux.limits.history import History
from aimux.limits.keeper import LimitKeeper
from aimux.limits.settlement import Settlement
from aimux.metering.calendar import Calendar
from aimux.metering.flattener import Flattener
from aimux.metering.ledger import Ledger
from aimux.metering.prices import Prices
from aimux.metering.repricing import reprice
from aimux.metering.tariff import Tariff
from aimux.storage import Database, StorageError
from tests.metering.support import settled
from tests.waiting import until

from .nodes import UTC
from .support import ALICE, record, used


class Served:
    """A process that has a ledger of its own, and whose prices nobody knows yet."""

    def __init__(self, database: Database, folder: Path, **section: object) -> None:
        self.prices = Prices()
        self.prices.on_unknown = lambda _provider, _model, _at: None
        self.database, self.calendar = database, Calendar(UTC)
        self.ledger = Ledger(
            database, Flattener("node", self.prices), self.calendar, folder, spill_limit=1 << 24, keep=1e9
        )
        self.limits = Limits(Policy(), UTC)
        self.keeper = LimitKeeper(database, self.limits, Section.model_validate(section), self.ledger)
        self.settlement = Settlement(self.limits, self.prices.of_record)

    def answered(self, tokens: int) -> None:
        now = time.time()
        one = record(now, tokens)
        plan = self.limits.plan(self.limits.terms(ALICE), "claude", "opus-5", now)
        lease = one.lease = self.limits.reserve(plan, 9, now)
        assert not isinstance(lease, Refusal)
        for sink in (self.settlement, self.ledger.record):
            sink(one)


@pytest.fixture
async def served(database_url: str | None, tmp_path: Path) -> AsyncIterator[Callable[..., Served]]:
    database = await Database.open(database_url, tmp_path / "state")
    yield lambda **section: Served(database, tmp_path / "spilled", **section)
    await database.close()


async def test_what_had_no_price_counts_by_its_price_once_that_is_known(served: Callable[..., Served]) -> None:
    one = served(default={"cost_per_day": 50, "tokens_per_day": 10**6})
    await one.keeper.refresh()
    one.answered(1000)
    assert used(one.keeper) == {"user:alice cost_per_day": 0.04, "user:alice tokens_per_day": 4000}
    await one.ledger.catch_up()
    rates = {"input": 10**6, "output": 2 * 10**6, "cache_read": 0, "cache_write": 10**6}
    one.prices.tariffs["claude", "opus-5"] = Tariff.of_json([[0, {"": [[0, rates]]}]])
    assert await reprice(one.database, one.calendar, one.prices, 0) == 1
    one.answered(1000)
    await one.keeper.refresh(recount=True)
    assert used(one.keeper) == {"user:alice cost_per_day": 0.008, "user:alice tokens_per_day": 8000}
    await one.ledger.catch_up()
    await one.keeper.refresh(recount=True)
    assert used(one.keeper) == {"user:alice cost_per_day": 0.008, "user:alice tokens_per_day": 8000}


async def test_what_ends_while_the_ledger_is_read_counts_under_a_new_limit(
    served: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = served(default={"tokens_per_day": 10**6})
    await one.keeper.refresh()
    one.answered(10)
    read = history.read

    async def slow(*given: Any, **named: Any) -> History:
        one.answered(100)
        found = await read(*given, **named)
        one.answered(1000)
        return found

    monkeypatch.setattr(history, "read", slow)
    each = {"tokens_per_day": 10**6, "tokens_per_week": 10**6}
    await one.keeper.reconfigure(Section.model_validate({"default": each}))
    assert used(one.keeper) == {"user:alice tokens_per_day": 4440, "user:alice tokens_per_week": 4440}
    await one.ledger.catch_up()
    monkeypatch.undo()
    await one.keeper.refresh(recount=True)
    assert used(one.keeper) == {"user:alice tokens_per_day": 4440, "user:alice tokens_per_week": 4440}


async def test_nothing_is_forgotten_while_the_database_does_not_take_requests(
    served: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = served(default={"tokens_per_day": 10**6})
    await one.keeper.refresh()

    async def fails(*_given: object) -> None:
        raise StorageError("it is full")

    monkeypatch.setattr(one.ledger.store, "write", fails)
    one.answered(10)
    await one.keeper.refresh(recount=True)
    assert used(one.keeper) == {"user:alice tokens_per_day": 40}


async def test_a_limit_that_comes_while_requests_wait_for_the_database_counts_them_once_it_has_them(
    served: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = served(default={"tokens_per_day": 10**6})
    await one.keeper.start()
    write = one.ledger.store.write

    async def fails(*_given: object) -> None:
        raise StorageError("it is full")

    monkeypatch.setattr(one.ledger.store, "write", fails)
    one.answered(10)
    monkeypatch.setattr("aimux.limits.keeper.RECOUNT_SECONDS", 0.01)
    each = {"tokens_per_day": 10**6, "tokens_per_week": 10**6}
    await one.keeper.reconfigure(Section.model_validate({"default": each}))
    assert used(one.keeper) == {"user:alice tokens_per_day": 40, "user:alice tokens_per_week": 0}
    monkeypatch.setattr(one.ledger.store, "write", write)
    await settled(one.ledger)
    await until(lambda: used(one.keeper) == {"user:alice tokens_per_day": 40, "user:alice tokens_per_week": 40})
    await one.keeper.close()
