"""The ledger of a real process that is killed, or stopped, in the middle of its work."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from aimux.simulator import Simulator
from tests.e2e.load import Load, under_load
from tests.e2e.process import config_of, put_account, serving

KILLS = 100 if os.environ.get("CI") else 3
LOST_AT_MOST = 1.0
"""What was answered so many seconds before a kill is there."""


def kept(folder: Path) -> Counter[str]:
    """How often each request is in the ledger."""
    with closing(sqlite3.connect(folder / "state" / "aimux.db")) as connection:
        return Counter(dict(connection.execute("SELECT request_id, count(*) FROM requests GROUP BY request_id")))


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
            await asyncio.sleep(load.late)  # as much as is allowed for below
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
