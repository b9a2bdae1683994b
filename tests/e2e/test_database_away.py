"""The ledger of a real process whose database is away for a while."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aimux.simulator import Simulator
from tests.e2e.load import KINDS, Load, under_load
from tests.e2e.process import TOKEN, Aimux, config_of, serving
from tests.postgresql import Server
from tests.waiting import until

AWAY = 60.0 if os.environ.get("CI") else 3.0
"""Seconds for which the database is gone."""
Gone = Callable[[], AbstractContextManager[None]]


async def usage(session: aiohttp.ClientSession, aimux: Aimux, folder: Path) -> dict[str, Any]:
    """The sums that the API tells."""
    key = (folder / "state" / "admin.key").read_text().strip()
    async with session.get(
        f"{aimux.address}/api/v1/usage?since=1d", headers={"authorization": f"Bearer {key}"}
    ) as answer:
        found = await answer.json()
        assert answer.status == 200, found
        total: dict[str, Any] = found["total"]
        return total


@pytest.fixture
def gone(folder: Path, database_url: str | None, request: pytest.FixtureRequest) -> Gone:
    """A database of either engine that is away for as long as the block lasts."""

    @contextmanager
    def locked() -> Iterator[None]:
        with closing(sqlite3.connect(folder / "state" / "aimux.db", isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield

    @contextmanager
    def stopped() -> Iterator[None]:
        server: Server = request.getfixturevalue("postgresql")
        server.stop()
        try:
            yield
        finally:
            server.start()

    return locked if database_url is None else stopped


async def test_a_kill_while_the_database_is_gone_takes_nothing_off_what_was_used(
    sim: Simulator, folder: Path, database_url: str | None, gone: Gone
) -> None:
    """What waited on the disk counts for limits, too, as soon as the next process serves, and once for ever."""
    settings: dict[str, Any] = {"limits": {"default": {"tokens_per_month": 10**9}}}
    if database_url is not None:
        settings["database"] = {"url": database_url, "encryption_key": "11" * 32}
    config = config_of(sim, folder, **settings)
    config["providers"]["claude"]["api_key"] = sim.accounts["claude-key"].api_key
    spill = folder / "state" / "ledger"

    def waiting() -> int:
        return sum(len(file.read_bytes().splitlines()) for file in spill.glob("*.rows"))

    async def used(aimux: Aimux, session: aiohttp.ClientSession) -> int:
        url, headers = f"{aimux.address}/api/v1/me/limits", {"authorization": f"Bearer {TOKEN}"}
        async with session.get(url, headers=headers) as answer:
            [standing] = (await answer.json())["items"]
            return int(standing["used"])

    load = Load()
    async with aiohttp.ClientSession() as session:
        async with serving(folder, config) as aimux:
            await usage(session, aimux, folder)  # the database is there then
            with gone():
                async with under_load(aimux, load):
                    await load.answers(10)
                await until(lambda: waiting() >= len(load.answered), 30)
                await aimux.stop(signal.SIGKILL)
        assert waiting() == len(load.answered)
        own = load.used()
        tokens = sum(own[kind] for kind in KINDS)
        for _ in range(2):
            async with serving(folder, config) as aimux:
                assert await used(aimux, session) == tokens
                assert (await usage(session, aimux, folder))["requests"] == own["requests"]
                assert await used(aimux, session) == tokens
                await aimux.stop(signal.SIGKILL)


async def test_a_database_that_is_gone_for_a_while_loses_and_doubles_nothing(
    sim: Simulator, folder: Path, postgresql: Server, postgresql_url: str
) -> None:
    """Sums are equal to the harness's own count, to the token."""
    key = sim.accounts["claude-key"].api_key
    database = {"url": postgresql_url, "encryption_key": "11" * 32}
    config = config_of(sim, folder, database=database)
    config["providers"]["claude"]["api_key"] = key
    load = Load()
    async with serving(folder, config) as aimux, aiohttp.ClientSession() as session:
        async with under_load(aimux, load):
            await asyncio.sleep(1.5)
            postgresql.stop()
            try:
                await asyncio.sleep(AWAY)
                before = len(load.answered)
                async with session.get(f"{aimux.address}/ready") as answer:
                    waiting = (await answer.json())["ledger"]
                assert waiting["waiting_bytes"] > 0
                assert waiting["filled"] < 1
                assert "reason" in waiting
                key = (folder / "state" / "admin.key").read_text().strip()
                for path in ("accounts", "accounts/claude/api-key", "live"):
                    url, headers = f"{aimux.address}/api/v1/{path}", {"authorization": f"Bearer {key}"}
                    async with session.get(url, headers=headers) as answer:
                        assert answer.status == 200, f"{path}: {await answer.text()}"
                async with session.get(f"{aimux.address}/api/v1/usage", headers=headers) as answer:
                    told = (await answer.json())["detail"]
                assert told.lower().startswith("postgresql://"), "the one that is away is named"
            finally:
                postgresql.start()
            await asyncio.sleep(1.5)
        assert len(load.answered) > before, "requests were served all the while"
        async with asyncio.timeout(60):
            while True:
                async with session.get(f"{aimux.address}/ready") as answer:
                    if "ledger" not in await answer.json():
                        break
                await asyncio.sleep(0.1)
        # A price that could not be looked up meanwhile is looked up now.
        async with asyncio.timeout(60):
            while (total := await usage(session, aimux, folder))["unpriced_requests"]:
                await asyncio.sleep(0.2)
    own = load.used()
    assert total["requests"] == own["requests"]
    assert total["input_tokens"] == own["input_tokens"]
    assert total["output_tokens"] == own["output_tokens"]
    assert total["cache_read_tokens"] == own["cache_read_input_tokens"]
    assert total["cache_write_tokens"] == own["cache_creation_input_tokens"]
    assert total["cost_usd"] > 0
