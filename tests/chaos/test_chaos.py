"""aimux as a process, two hundred clients, and everything that can go wrong: the ledger decides.

`make chaos` runs it and prints its figures (SECONDS=600 for longer; AIMUX_CHAOS_SEED=… repeats an order of faults), and
so does CI.
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
from dataclasses import dataclass
from pathlib import Path

import pytest

from aimux.simulator import Simulator
from tests.certificates.certificates import Issued

from .clients import KINDS, LIMIT, client
from .endpoint import Endpoint
from .faults import MISPLACED, Faults
from .held import Held, at_rest, peaks
from .ledger import Ledger, leaks
from .machine import Clock, Disk
from .scheduler import Scheduler
from .world import ACCOUNTS, PACE, World, listening

SECONDS = float(os.environ.get("AIMUX_CHAOS", "60"))
"""About so long it takes: a tenth without any fault, half of it with them, another tenth without; starts and ends."""
CI = "CI" in os.environ
LONG = 16 << 10
"""No line of the log has more characters."""
SEED = int(os.environ.get("AIMUX_CHAOS_SEED") or 0) or (41 if CI else random.SystemRandom().randrange(1, 1 << 31))


@asynccontextmanager
async def world(folder: Path, dice: random.Random) -> AsyncIterator[World]:
    disk = Disk(folder / "state")
    try:
        with listening() as listener:
            async with Simulator(scenario=PACE, capacity=math.inf, keep=0) as sim:
                users = {f"user{number}": f"user{number}-token-{dice.randbytes(8).hex()}" for number in range(8)}
                issued = [Issued("one"), Issued("two")]
                made = World(sim, folder, disk, Clock(folder / "clock"), listener, issued, users, SEED)
                for name, vendor, kind in ACCOUNTS:
                    made.accounts[name] = account = sim.add_account(name, vendor, kind)  # type: ignore[arg-type]
                    made.put(account)
                made.certify(made.certificates[0])
                try:
                    await made.start()
                    yield made
                finally:
                    for number, process in enumerate(made.outputs):
                        await process.stop()
                        (folder / f"aimux-{number}.log").write_text("\n".join(process.stderr))
    finally:
        disk.close()


@asynccontextmanager
async def crowd(endpoint: Endpoint, dice: random.Random) -> AsyncIterator[None]:
    """The clients, who finish what they began."""
    endpoint.over = False
    tasks = [
        asyncio.create_task(client(endpoint, random.Random(dice.random()), kind, run))
        for kind, (count, run) in KINDS.items()
        for _ in range(count)
    ]
    try:
        yield
        endpoint.over = True
        done, _ = await asyncio.wait(tasks, timeout=2 * LIMIT)
        assert len(done) == len(tasks), f"{len(tasks) - len(done)} clients never end"
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def ready(world: World) -> bytes:
    """Until every account can serve: what /ready says then."""
    said = b""
    try:
        async with asyncio.timeout(60):
            while True:
                said = await world.get("/ready")
                accounts = [provider["accounts"] for provider in json.loads(said)["providers"].values()]
                if accounts == [{"healthy": 3}, {"healthy": 2}]:
                    return said
                await asyncio.sleep(0.5)
    except TimeoutError:
        log = [line for process in world.outputs for line in process.stderr if "aimux.accounts" in line]
        raise AssertionError("\n".join([f"an account does not come back: {said.decode()}", *log[-40:]])) from None


async def rested(world: World) -> Held:
    """What it holds at rest, once it has done what it does now and then: SQL statements are kept once they are made."""
    for by in (-120.0, 0.0):
        async with world.hearing("the clock was set by"):
            world.clock.move(by)
    return await at_rest(world)


async def told(world: World, ledger: Ledger) -> dict[str, bytes]:
    """Everything that aimux says to somebody who asks."""
    answers = {path: await world.get(path) for path in ("/metrics", "/ready", "/health")}
    paths = ["/accounts", *(f"/accounts/{'claude' if v == 'anthropic' else 'chatgpt'}/{n}" for n, v, _ in ACCOUNTS)]
    paths += [f"/requests/{entry.tag}" for entry in ledger.entries[-50:]]
    for path in paths:
        answers[path] = await world.get(f"/api/v1{path}", world.admin_key)
    return answers


@dataclass
class Outcome:
    """Of a whole run."""

    world: World
    ledger: Ledger
    before: Held
    after: Held
    most: Held
    outputs: dict[str, bytes]
    secrets: set[str]

    @property
    def log(self) -> list[str]:
        return [line for process in self.world.outputs for line in process.stderr]

    def __str__(self) -> str:
        return (
            f"seed {SEED}, {SECONDS:g} s, {len(self.world.outputs)} processes, the state folder on {self.world.disk}\n"
            f"{self.ledger.figures()}\n"
            f"at rest before the faults {self.before}, after them {self.after}; at most {self.most}"
        )

    def wrong(self) -> list[str]:
        """Everything that should not be so."""
        log, ledger = self.log, self.ledger
        wrong = ledger.violations[:20]
        unexcused = ledger.unexcused()
        for entry in unexcused[:20]:
            meanwhile = [name for began, ended, name in ledger.history if began < entry.ended and entry.began < ended]
            wrong += [f"{entry}, during {meanwhile}", *(line for line in log if entry.tag in line)]
        if unexcused:
            wrong.append(f"{len(unexcused)} requests ended as they should not")
        wrong += leaks(self.outputs, self.secrets)
        for account in self.world.accounts.values():
            if any(family.revoked == "reused" for family in account.families):
                wrong.append(f"a refresh token of {account.name} was used after its rotation")
        wrong += [f"a line of {len(line)} characters: {line[:300]} … {line[-300:]}" for line in log if len(line) > LONG]
        for at, line in enumerate(log):
            if "Traceback" in line or "a fault in" in line:
                wrong += log[at : at + 40]
                break
        return wrong + self.after.more_than(self.before)


async def run(folder: Path) -> Outcome:
    dice = random.Random(SEED)
    ledger = Ledger(folder / "spool", random.Random(dice.random()))
    async with world(folder, dice) as made:
        endpoint = Endpoint(made.listener.getsockname(), made.context, list(made.users.values()), ledger)
        faults = Faults(made, ledger, random.Random(dice.random()))
        scheduler = Scheduler(faults, ledger, random.Random(dice.random()))
        async with peaks(made) as most:
            async with crowd(endpoint, dice):
                await asyncio.sleep(SECONDS / 10)
            before = await rested(made)
            async with crowd(endpoint, dice):
                await scheduler.run(SECONDS / 2)
            await faults.logins.log_in_again()
            await ready(made)
            await faults.logins.settled()
            async with crowd(endpoint, dice):
                await asyncio.sleep(SECONDS / 10)
            after = await rested(made)
        outputs = await told(made, ledger)
        await faults.logins.settled()
        await made.stop(made.aimux)
        for number, process in enumerate(made.outputs):
            outputs[f"stdout of run {number}"] = "\n".join(process.stdout).encode()
            outputs[f"stderr of run {number}"] = "\n".join(process.stderr).encode()
        outputs["accounts.json"] = (made.disk.folder / "accounts.json").read_bytes()
        outputs["what clients received"] = ledger.spool.read_bytes()
        ledger.spool.unlink()
        secrets = made.secrets() | {*endpoint.strangers, MISPLACED}
    return Outcome(made, ledger, before, after, most, outputs, secrets)


@pytest.mark.slow
@pytest.mark.timeout(300 + 2 * SECONDS)
@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc and limits another process")
@pytest.mark.skipif(not (CI or "AIMUX_CHAOS" in os.environ), reason="it takes a minute: `make chaos` runs it")
def test_chaos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        outcome = asyncio.run(run(tmp_path))
        wrong = outcome.wrong()
        assert not wrong, "\n".join([*wrong, str(outcome)])
    except BaseException as error:
        error.add_note(f"AIMUX_CHAOS_SEED={SEED} repeats the order of faults; {tmp_path} has the logs")
        raise
    with capsys.disabled():
        sys.stdout.write(f"\n{outcome}\n")
