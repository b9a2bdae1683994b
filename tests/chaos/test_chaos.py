"""aimux as a process, two hundred clients, and everything that can go wrong: the ledger decides.

`make chaos` runs it for longer (SECONDS=600) and prints its figures; AIMUX_CHAOS_SEED repeats an order of faults.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from aimux.simulator import Simulator
from tests.tls.certificates import Issued

from .clients import KINDS, LIMIT, Door, client
from .ledger import Ledger, leaks
from .scheduler import Scheduler
from .world import ACCOUNTS, PACE, Disk, World, listening

SECONDS = float(os.environ.get("AIMUX_CHAOS", "30"))
"""Of faults; as long again as a third of it of work without any, and some for starts and ends."""
SEED = int(os.environ.get("AIMUX_CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)
MORE_MEMORY = 24 * 1024 * 1024
"""What a process may hold more after the second half of its work than after the first."""


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    disk = Disk(folder / "state")
    try:
        with listening() as listener:
            async with Simulator(scenario=PACE, capacity=math.inf, keep=0) as sim:
                users = {f"user{number}": f"user{number}-token-{random.randbytes(8).hex()}" for number in range(8)}
                made = World(sim, folder, disk, listener, [Issued("one"), Issued("two")], users)
                for name, vendor, kind in ACCOUNTS:
                    made.accounts[name] = account = sim.add_account(name, vendor, kind)  # type: ignore[arg-type]
                    made.put(account)
                made.certify(made.certificates[0])
                await made.start()
                try:
                    yield made
                finally:
                    await made.aimux.stop()
    finally:
        disk.close()


@asynccontextmanager
async def crowd(door: Door) -> AsyncIterator[None]:
    """The clients, who finish what they began."""
    door.over = False
    tasks = [asyncio.create_task(client(door, kind, run)) for kind, (count, run) in KINDS.items() for _ in range(count)]
    try:
        yield
        door.over = True
        done, _ = await asyncio.wait(tasks, timeout=2 * LIMIT)
        assert len(done) == len(tasks), f"{len(tasks) - len(done)} clients never end"
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def at_rest(world: World) -> tuple[int, int]:
    """Descriptors and memory of the process, when nothing is open but what always is."""
    async with asyncio.timeout(30):
        while True:
            for transport, _ in world.upstreams():
                transport.abort()
            before = world.descriptors()
            await asyncio.sleep(0.5)
            if before == world.descriptors() and not world.upstreams():
                return before, world.memory()


async def ready(world: World) -> bytes:
    """Until every account can serve: what /ready says then."""
    host, port = world.listener.getsockname()
    said = b""
    try:
        async with asyncio.timeout(60), aiohttp.ClientSession() as session:
            while True:
                async with session.get(f"https://{host}:{port}/ready", ssl=False) as answer:
                    said = await answer.read()
                accounts = [provider["accounts"] for provider in json.loads(said)["providers"].values()]
                if accounts == [{"healthy": 3}, {"healthy": 2}]:
                    return said
                await asyncio.sleep(0.5)
    except TimeoutError:
        log = [line for line in world.aimux.stderr if " account " in line]
        raise AssertionError("\n".join([f"an account does not come back: {said.decode()}", *log[-20:]])) from None


async def metrics(world: World) -> bytes:
    host, port = world.listener.getsockname()
    async with aiohttp.ClientSession() as session, session.get(f"https://{host}:{port}/metrics", ssl=False) as answer:
        return await answer.read()


async def run(folder: Path) -> str:
    dice = random.Random(SEED)
    ledger = Ledger(folder / "spool")
    async with world(folder) as made:
        door = Door(made.listener.getsockname(), made.context, list(made.users.values()), ledger)
        scheduler = Scheduler(made, ledger, dice)
        async with crowd(door):
            await scheduler.run(SECONDS)
        await ready(made)
        await scheduler.settled()

        await scheduler.restart()
        async with crowd(door):
            await asyncio.sleep(SECONDS / 6)
        before = await at_rest(made)
        async with crowd(door):
            await asyncio.sleep(SECONDS / 6)
        after = await at_rest(made)

        told = {"metrics": await metrics(made), "ready": await ready(made)}
        await scheduler.settled()
        await made.stop(made.aimux)
        for number, process in enumerate(made.outputs):
            told[f"stdout of run {number}"] = "\n".join(process.stdout).encode()
            told[f"stderr of run {number}"] = "\n".join(process.stderr).encode()
        told["what clients received"] = ledger.spool.read_bytes()
        found = leaks(told, made.secrets())
        reused = [
            account.name for account in made.accounts.values() if any(f.revoked == "reused" for f in account.families)
        ]
        faults = [
            line for process in made.outputs for line in process.stderr if "Traceback" in line or "a fault in" in line
        ]

    figures = (
        f"seed {SEED}, {SECONDS:g} s of faults, {len(made.outputs)} processes\n{ledger.figures()}\n"
        f"descriptors {before[0]} -> {after[0]}, memory {before[1] >> 20} -> {after[1] >> 20} MiB"
    )
    unexcused = ledger.unexcused()
    assert not ledger.violations, "\n".join([*ledger.violations[:20], figures])
    assert not unexcused, "\n".join([*map(str, unexcused[:20]), f"{len(unexcused)} in all", figures])
    assert not found, "\n".join(found[:20])
    assert not reused, f"a refresh token was used after its rotation: {reused}"
    assert not faults, faults[:5]
    assert after[0] <= before[0], figures
    assert after[1] - before[1] < MORE_MEMORY, figures
    return figures


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc and mounts a tmpfs")
@pytest.mark.slow
@pytest.mark.skipif("AIMUX_CHAOS" not in os.environ, reason="`make chaos` runs it; it takes a minute")
def test_chaos(tmp_path: Path) -> None:
    figures = asyncio.run(run(tmp_path))
    sys.stdout.write(f"\n{figures}\n")
