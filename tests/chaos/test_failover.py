"""Failing over under load: whatever some account can serve is served, at little cost, and never by a parked account."""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path

from aimux.accounts import Account
from aimux.app import App
from aimux.simulator import Account as Upstream
from aimux.simulator import Simulator
from aimux.simulator.accounts import Vendor
from tests.e2e.process import put_account

from .clients import Door, ask
from .inside import inside

REQUESTS = 10_000 if os.environ.get("AIMUX_CHAOS") else 2_500
BATCH, AT_ONCE = 50, 10
ACCOUNTS: tuple[tuple[str, Vendor, str], ...] = tuple((f"a{number}", "anthropic", "oauth") for number in range(5))
FAULTS = ("429:1", "429:1:5h", "529", "529", "500", "drop:rst", "drop", "overload")
MOST_ATTEMPTS = 1.2


class Trouble:
    """Faults for some accounts, dealt anew before each batch, so that none of its requests can run out of attempts:

    at most two accounts fail, one request at most once on each, and at least one other is known to be well.
    """

    def __init__(self, app: App, sim: Simulator, state: Path, dice: random.Random) -> None:
        self.pool = app.pools["claude"]
        self.sim = sim
        self.dice = dice
        self.parked: dict[str, int] = {}
        """Account → requests that its upstream had seen when it was parked."""
        self.parkings = 0
        self._state = state

    def upstream(self, account: Account) -> Upstream:
        return self.sim.accounts[account.name]

    async def deal(self) -> None:
        for account in self.pool.accounts.values():
            self.upstream(account).script.clear()
        if self.parked and self.dice.random() < 0.2:
            await self._log_in_again()
        now = time.time()
        well = [account for account in self.pool.accounts.values() if account.state(now).status == "healthy"]
        for account in self.dice.sample(well, max(0, min(2, len(well) - 1))):
            upstream, kind = self.upstream(account), self.dice.random()
            if kind < 0.12:
                upstream.revoke()  # and its refresh token is refused
            elif kind < 0.35:
                upstream.script("401")
            else:
                upstream.script(*self.dice.choices(FAULTS, k=self.dice.randint(1, 4)))

    async def _log_in_again(self) -> None:
        for name in self.parked:
            upstream = self.sim.accounts[name]
            self.sim.tokens["anthropic"].login(upstream, upstream.family.client_id)
            put_account(self._state, upstream, name)
        await self.pool.load()
        self.parked.clear()

    def check(self) -> None:
        """No parked account was asked since it was parked."""
        for account in self.pool.accounts.values():
            if account.state(time.time()).status != "parked":
                continue
            seen = self.upstream(account).requests
            if account.name not in self.parked:
                self.parkings += 1
            assert self.parked.setdefault(account.name, seen) == seen, f"{account.name} is parked, and was asked"


async def worker(door: Door, requests: list[int]) -> None:
    connection = await door.connect()
    try:
        while requests:
            requests.pop()
            with door.ledger.request("claude", "message") as entry:
                assert await ask(door, connection, entry, stream=False) is not None
    finally:
        connection.close()


async def test_whatever_an_account_can_serve_is_served(tmp_path: Path) -> None:
    dice = random.Random(20261121)
    async with inside(tmp_path, ACCOUNTS) as (app, sim, door):
        trouble = Trouble(app, sim, tmp_path / "state", dice)
        for _ in range(REQUESTS // BATCH):
            await trouble.deal()
            requests = list(range(BATCH))
            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(worker(door, requests))
            trouble.check()
        ends = {(entry.end, entry.status) for entry in door.ledger.entries}
        asked = sum(sim.accounts[name].requests for name, _, _ in ACCOUNTS)
    bad = [entry for entry in door.ledger.entries if entry.end != "whole"]
    assert ends == {("whole", 200)}, bad[:5]
    assert not door.ledger.violations
    assert len(door.ledger.entries) == REQUESTS // BATCH * BATCH
    assert asked / len(door.ledger.entries) <= MOST_ATTEMPTS
    assert asked > len(door.ledger.entries) * 1.02, "something did go wrong"
    assert trouble.parkings >= 3
