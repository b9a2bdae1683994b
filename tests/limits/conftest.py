"""Nodes on one PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aimux.config.limits import Limits as Section
from aimux.limits import Limits, Policy
from aimux.limits.keeper import LimitKeeper
from aimux.limits.shares import Claims
from aimux.storage import Database

from .nodes import UTC, Node, Time, exchange


@pytest.fixture
def passed() -> Time:
    return Time()


@pytest.fixture
async def node(tables_url: str, tmp_path: Path, passed: Time) -> AsyncIterator[Node]:
    """Starts a node. Its rounds are the test's."""
    opened: list[LimitKeeper] = []

    async def start(amount: int = 60_000, **others: int) -> LimitKeeper:
        database = await Database.open(tables_url, tmp_path / f"state{len(opened)}")
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
