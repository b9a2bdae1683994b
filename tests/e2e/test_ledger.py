"""The ledger of a real process: killed, stopped, and without its database in the middle of its work."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aimux.simulator import Simulator
from tests.e2e.process import TOKEN, Aimux, config_of, put_account, serving
from tests.postgresql import Server

KILLS = 100 if os.environ.get("CI") else 3
AWAY = 60.0 if os.environ.get("CI") else 3.0
"""Seconds for which the database is gone."""
LOST_AT_MOST = 1.0
"""What was answered so many seconds before a kill is there."""
Gone = Callable[[], AbstractContextManager[None]]
KINDS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


@dataclass
class Load:
    """What a few clients sent, and were answered: by request id when, and with which usage."""

    sent: int = 0
    over: bool = False
    answered: dict[str, tuple[float, dict[str, int]]] = field(default_factory=dict)
    late: float = 0.0
    """By how many seconds at most this process was woken too late: so busy is the machine."""

    async def client(self, session: aiohttp.ClientSession, aimux: Aimux, name: str) -> None:
        headers = {"authorization": f"Bearer {TOKEN}", "anthropic-version": "2023-06-01"}
        while not self.over:
            self.sent += 1
            own = f"{name}-{self.sent}"
            message = {"model": "claude-sonnet-5", "max_tokens": 99, "messages": [{"role": "user", "content": own * 9}]}
            try:
                async with session.post(
                    f"{aimux.claude}/v1/messages", json=message, headers={**headers, "x-request-id": own}
                ) as answer:
                    body = await answer.json()
            except aiohttp.ClientError:
                return
            assert answer.status == 200, body
            self.answered[own] = (time.monotonic(), body["usage"])
            await asyncio.sleep(random.uniform(0, 0.05))

    async def watch_the_machine(self) -> None:
        self.late = 0.0
        while not self.over:
            due = time.monotonic() + 0.05
            await asyncio.sleep(0.05)
            self.late = max(self.late, time.monotonic() - due)

    async def answers(self, count: int) -> None:
        """Until so many more came."""
        count += len(self.answered)
        async with asyncio.timeout(30):
            while len(self.answered) < count:
                await asyncio.sleep(0.02)

    def used(self) -> Counter[str]:
        """In sum."""
        total: Counter[str] = Counter(requests=len(self.answered))
        for _, usage in self.answered.values():
            total.update({kind: usage[kind] for kind in KINDS})
        return total


@asynccontextmanager
async def under_load(aimux: Aimux, load: Load, clients: int = 4) -> AsyncIterator[None]:
    load.over = False
    async with aiohttp.ClientSession() as session:
        tasks = [asyncio.create_task(load.client(session, aimux, f"{time.time_ns()}-{n}")) for n in range(clients)]
        tasks.append(asyncio.create_task(load.watch_the_machine()))
        try:
            yield
        finally:
            load.over = True
            await asyncio.gather(*tasks)


def kept(folder: Path) -> Counter[str]:
    """How often each request is in the ledger."""
    with closing(sqlite3.connect(folder / "state" / "aimux.db")) as connection:
        return Counter(dict(connection.execute("SELECT request_id, count(*) FROM requests GROUP BY request_id")))


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


@pytest.mark.timeout(60 + 12 * KILLS)  # on two cores with the rest of the suite beside it
async def test_a_kill_loses_the_last_second_at_most_and_doubles_nothing(sim: Simulator, folder: Path) -> None:
    put_account(folder / "state", sim.accounts["claude"])
    config = config_of(sim, folder)
    load = Load()
    must: dict[str, float] = {}
    """Of each request how long before the kill it was answered."""
    for _ in range(KILLS):
        earlier = set(load.answered)
        async with serving(folder, config) as aimux, under_load(aimux, load):
            await asyncio.sleep(random.uniform(1.1, 1.9))
            killed = time.monotonic()
            await aimux.stop(signal.SIGKILL)
        fresh = load.answered.keys() - earlier
        before = {own: killed - load.answered[own][0] for own in fresh}
        must |= {own: seconds for own, seconds in before.items() if seconds > LOST_AT_MOST + load.late}
    async with serving(folder, config), asyncio.timeout(20):
        while list((folder / "state" / "ledger").glob("*.rows")):  # what a kill left there is taken over
            await asyncio.sleep(0.1)
    found = kept(folder)
    lost = {own: round(must[own], 2) for own in must.keys() - found.keys()}
    assert lost == {}, "seconds between an answer and the kill"
    assert len(must) > 5 * KILLS
    assert [own for own, times in found.items() if times > 1] == []
    with closing(sqlite3.connect(folder / "state" / "aimux.db")) as connection:
        (counted,) = connection.execute("SELECT sum(requests) FROM usage_hours WHERE key = 0").fetchone()
        (single,) = connection.execute("SELECT count(*) FROM requests").fetchone()
    assert counted == single, "a sum is of rows that are there"


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
                async with asyncio.timeout(30):
                    while waiting() < len(load.answered):
                        await asyncio.sleep(0.1)
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


async def test_a_stop_loses_nothing(sim: Simulator, folder: Path) -> None:
    put_account(folder / "state", sim.accounts["claude"])
    config = config_of(sim, folder)
    load = Load()
    async with serving(folder, config) as aimux, under_load(aimux, load):
        await asyncio.sleep(1.5)
        assert await aimux.stop() == 0
    found = kept(folder)
    assert load.answered.keys() - found.keys() == set()
    assert max(found.values()) == 1


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
