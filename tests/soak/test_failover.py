"""Failover under load: accounts fail at random, in every way that concerns one account; nobody who asks notices.

The load comes in rounds, each with its own victims. At most two accounts fail within one round, and a request has three
attempts: so each request has an account that can serve it, and each must be served.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import time
from collections import Counter
from pathlib import Path

import aiohttp
import pytest
import uvloop

from aimux.accounts import Account as Served
from aimux.app import App
from aimux.simulator import Account, Simulator
from tests.e2e.process import TOKEN, put_account
from tests.soak.world import gateway

log = logging.getLogger(__name__)

REQUESTS = int(os.environ.get("AIMUX_FAILOVER_REQUESTS", "3000"))
"""`make failover` asks for 10,000."""
ACCOUNTS = 5
ROUND = 20
AT_ONCE = 8
PLAN = {
    "429": 2,
    "429 in the other window": 1,
    "529": 5,
    "500": 2,
    "overloaded": 4,
    "closed": 5,
    "reset": 5,
    "expired": 5,
    "expired, and no renewal now": 1,
    "expired, and renewal refused": 1,
    "revoked": 2,
}
"""What happens to accounts, and its share. A 429 without a reset is not here: that one is the client's."""
FATAL = {"expired, and renewal refused", "revoked"}


def strike(account: Account, fault: str, rng: random.Random) -> None:
    """Let it happen to the requests that come next, or to all of them until the account has recovered."""
    times = rng.randint(1, 6)
    match fault:
        case "429":
            account.script.always = "429:1"
        case "429 in the other window":
            account.script.always = "429:2:7d"
        case "529" | "500":
            account.script(*[fault] * times)
        case "overloaded":
            account.script(*["overload"] * times)
        case "closed":
            account.script(*["drop"] * times)
        case "reset":
            account.script(*["drop:rst"] * times)
        case "expired":
            account.expire()
        case "expired, and no renewal now":
            account.expire()
            account.on_refresh(rng.choice(["500", "503:1", "429:1"]))
        case "expired, and renewal refused":
            account.expire()
            account.revoke("expired")
        case "revoked":
            account.revoke()
        case _:
            raise ValueError(fault)


class Storm:
    def __init__(self, sim: Simulator, app: App, folder: Path, rng: random.Random) -> None:
        self.sim, self.app, self.folder, self.rng = sim, app, folder, rng
        self.upstream = {f"claude-{number}": sim.accounts[f"claude-{number}"] for number in range(ACCOUNTS)}
        self.pool = app.pools["claude"]
        self.struck: Counter[str] = Counter()
        self.parkings = 0
        self.avoided = 0
        self.bag: list[str] = []
        self.numbers = iter(range(REQUESTS))

    async def run(self, session: aiohttp.ClientSession) -> None:
        asked = 0
        while asked < REQUESTS:
            count = min(ROUND, REQUESTS - asked)
            await self.round(session, count)
            asked += count

    async def round(self, session: aiohttp.ClientSession, count: int) -> None:
        parked = [account for account in self.pool.accounts.values() if account.parked]
        for account in parked:
            if self.rng.random() < 0.5:  # its owner logs in again
                await self.log_in(account)
        self.choose()
        out = {account.name: self.out(account) for account in self.pool.accounts.values() if self.out(account)}
        before = {name: upstream.requests for name, upstream in self.upstream.items()}
        room = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self.ask(session, room))
        for name, since in out.items():
            if self.out(self.pool.accounts[name]) == since:  # for the whole round
                assert self.upstream[name].requests == before[name], f"{name} was asked while it was out"
                self.avoided += 1
        self.parkings += sum(account.parked is not None for account in self.pool.accounts.values()) - sum(
            since == "parked" for since in out.values()
        )
        for upstream in self.upstream.values():
            upstream.script.clear()
            upstream.on_refresh.clear()

    def out(self, account: Served) -> object:
        """Why and since when it may not be asked; None if it may."""
        if account.parked is not None:
            return "parked"
        until = account.free_at("")
        return until if until > time.time() else None

    async def log_in(self, account: Served) -> None:
        upstream = self.upstream[account.name]
        self.sim.tokens["anthropic"].login(upstream, upstream.family.client_id)
        put_account(self.folder / "state", upstream, account.name)
        await self.pool.load()
        assert account.parked is None

    def choose(self) -> None:
        """Up to two accounts fail now; no more than leave one that serves, and no third that might fail meanwhile."""
        able = {name for name, account in self.pool.accounts.items() if not self.out(account)}
        unseen = {name for name in able if self.failing(self.upstream[name])}
        count = min(self.rng.choice([0, 1, 2, 2]), 2, len(able) - 2) - len(unseen)
        for name in self.rng.sample(sorted(able - unseen), max(0, count)):
            fault = self.draw()
            strike(self.upstream[name], fault, self.rng)
            self.struck[fault] += 1

    def failing(self, upstream: Account) -> bool:
        """Its login is void, and as nobody has asked it since, aimux doesn't know."""
        return bool(upstream.family.revoked) or upstream.expires_at <= time.time()

    def draw(self) -> str:
        """The next fault: each in its turn, in random order. Parked accounts are few, so that there is a choice."""
        if not self.bag:
            self.bag = self.rng.sample(list(PLAN), sum(PLAN.values()), counts=list(PLAN.values()))
        if self.bag[-1] in FATAL and sum(account.parked is not None for account in self.pool.accounts.values()) > 1:
            return "529"
        return self.bag.pop()

    async def ask(self, session: aiohttp.ClientSession, room: asyncio.Semaphore) -> None:
        stream = self.rng.random() < 0.3
        message = {
            "model": "claude-sonnet-5",
            "max_tokens": 9,
            "stream": stream,
            "messages": [{"role": "user", "content": f"Question {next(self.numbers)}"}],
        }
        headers = {
            "authorization": f"Bearer {TOKEN}",
            "anthropic-version": "2023-06-01",
            "x-claude-code-session-id": f"session-{self.rng.randrange(40)}",
        }
        address = f"{self.app.addresses[0]}/claude/v1/messages"
        async with room, session.post(address, json=message, headers=headers) as answer:
            body = await answer.read()
        assert answer.status == 200, f"{answer.status}: {body!r}\n{self.why(answer.headers['x-request-id'])}"
        whole = b"event: message_stop" in body if stream else json.loads(body)["stop_reason"] == "end_turn"
        assert whole, body

    def why(self, request_id: str) -> str:
        found = self.app.journal.get(request_id)
        states = [(name, account.state(time.time())) for name, account in self.pool.accounts.items()]
        return "\n".join(map(str, [*(found.steps if found else ()), *states]))


async def storm(folder: Path, rng: random.Random) -> None:
    async with Simulator(keep=0, capacity=1e12) as sim:
        accounts = [sim.add_account(f"claude-{number}", "anthropic") for number in range(ACCOUNTS)]
        async with (
            gateway(folder, sim, [(account, account.name) for account in accounts]) as app,
            aiohttp.ClientSession() as session,
        ):
            world = Storm(sim, app, folder, rng)
            await world.run(session)
            further = sim.count("anthropic") - REQUESTS
            log.info("%d requests, %d further attempts; %s", REQUESTS, further, dict(world.struck))
            log.info("%d parkings; accounts were out for %d rounds", world.parkings, world.avoided)
            assert further <= AT_ONCE * world.struck.total(), "a fault costs those that it meets, and no others"
            assert set(world.struck) == set(PLAN), "every fault had its turn"
            assert world.parkings
            assert world.avoided
            assert all(account.in_flight == 0 for account in world.pool.accounts.values())


def test_no_request_fails_that_an_account_could_have_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # An account that can't be renewed for now is out for seconds, which would be most of the test.
    monkeypatch.setattr("aimux.accounts.pauses.FIRST_PAUSE", 0.5)
    uvloop.run(storm(tmp_path, random.Random(7)))
