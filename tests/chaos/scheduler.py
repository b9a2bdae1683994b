"""What goes wrong, one thing after the other in an order that a seed decides; each leaves its excuse in the ledger."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.serialization import Encoding

from aimux.simulator import Account

from .clients import CLIENTS
from .ledger import Ledger
from .world import ANCHORS, PACE, World

MASKED = (
    "429:1",
    "429:2:5h",
    "500",
    "502",
    "503",
    "529",
    "401",
    "403:revoked",
    "drop",
    "drop:rst",
    "overload",
    "slow-start:0.3",
    "interim:3",
    "stale",
)
"""Failures of one account that no client has to notice."""
SEEN = {"reset:2": "broken", "cut:2": "broken", "end:2": "broken", "overload:2": "failed"}
"""Those that come when the client has bytes already."""
REFUSALS = ("500", "503", "429", "drop", "drop:rst")
"""Of a token endpoint, for now."""


def provider_of(account: Account) -> str:
    return "claude" if account.vendor == "anthropic" else "chatgpt"


@dataclass
class Scheduler:
    world: World
    ledger: Ledger
    dice: random.Random

    def __post_init__(self) -> None:
        self.victims = [account for account in self.world.accounts.values() if account.name not in ANCHORS]
        self.logins = [account for account in self.world.accounts.values() if account.kind == "oauth"]
        small: list[Callable[[], Awaitable[None]]] = [self.fail, self.fail, self.break_off, self.kill_upstreams]
        small += [self.expire, self.refuse, self.bad_reload, self.good_reload]
        large = [self.disk_full, self.read_only, self.new_login, self.new_certificate, self.restart, self.kill]
        self._deck = [*small * 2, *large]

    async def run(self, seconds: float) -> None:
        """At least once each, however short the time."""
        until = time.monotonic() + seconds
        first = True
        while first or time.monotonic() < until:
            deck = self.dice.sample(self._deck, len(self._deck))
            for action in deck:
                if not first and time.monotonic() >= until:
                    break
                self.ledger.faults[action.__name__.replace("_", " ")] += 1
                await action()
                await asyncio.sleep(self.dice.uniform(0.1, 0.6))
            first = False

    # --- upstream ---------------------------------------------------------------------------------------------------

    async def fail(self) -> None:
        """Some account fails a request, so that another one has to serve it."""
        account = self.dice.choice(self.victims)
        if not len(account.script):  # one at a time: then no request can meet more than its attempts
            scenario = self.dice.choice(MASKED)
            account.script(f"{scenario},{PACE}")
            self._turn_may_end(account, scenario)

    async def break_off(self) -> None:
        account = self.dice.choice(self.victims)
        scenario, end = self.dice.choice(list(SEEN.items()))
        if not len(account.script):
            account.script(f"{scenario},{PACE}")
            self.ledger.excuse(end, scenario, provider=provider_of(account), seconds=60)
            self._turn_may_end(account, scenario)

    def _turn_may_end(self, account: Account, scenario: str) -> None:
        """A socket has its account for life: its turn fails, or aimux asks the client to come back."""
        if account.vendor == "openai":
            for end in ("failed", "broken", "closed"):
                self.ledger.excuse(end, f"{scenario} on a socket", provider="socket", seconds=60)

    async def kill_upstreams(self) -> None:
        """Connections of aimux to its upstreams, idle and busy ones."""
        connections = self.world.upstreams()
        for transport, busy in self.dice.sample(connections, len(connections) // 4):
            transport.abort()
            if busy:
                self.ledger.excuse("broken", "its upstream's connection was killed")

    # --- credentials ------------------------------------------------------------------------------------------------

    async def expire(self) -> None:
        """Access tokens run out before their time; the 401 has to lead to one renewal."""
        for account in self.dice.sample(self.logins, 2):
            account.expire()

    async def refuse(self) -> None:
        """The token endpoint fails for a while."""
        account = self.dice.choice([account for account in self.victims if account.kind == "oauth"])
        if not len(account.on_refresh):
            account.on_refresh(self.dice.choice(REFUSALS))
            account.expire()

    async def new_login(self) -> None:
        """An account's login is void; a while later somebody logs in again, with another program."""
        account = self.dice.choice([account for account in self.victims if account.kind == "oauth"])
        account.revoke()
        await asyncio.sleep(1)
        account.script.clear()
        account.on_refresh.clear()
        self.world.sim.tokens[account.vendor].login(account, account.family.client_id)
        self.world.put(account)

    async def settled(self) -> None:
        """Until every credential lies on the disk as it was issued last. Raises TimeoutError."""
        async with asyncio.timeout(30):
            for account in self.logins:
                while self.world.saved(account) != account.refresh_token:
                    await asyncio.sleep(0.05)

    # --- the disk ---------------------------------------------------------------------------------------------------

    async def disk_full(self) -> None:
        self.world.disk.fill(self.world.pid)
        try:
            await self._renewals_meanwhile()
        finally:
            self.world.disk.empty(self.world.pid)

    async def read_only(self) -> None:
        self.world.disk.lock()
        try:
            await self._renewals_meanwhile()
        finally:
            self.world.disk.unlock()

    async def _renewals_meanwhile(self) -> None:
        self.dice.choice([account for account in self.victims if account.kind == "oauth"]).expire()
        await asyncio.sleep(1.5)

    # --- the process ------------------------------------------------------------------------------------------------

    async def good_reload(self) -> None:
        said = self.world.aimux.output.count("the configuration was taken again")
        self.world.configure(log_level=self.dice.choice(["debug", "info"]))
        self.world.aimux.process.send_signal(signal.SIGHUP)
        await self.world.aimux.until(lambda: self.world.aimux.output.count("the configuration was taken again") > said)

    async def bad_reload(self) -> None:
        said = self.world.aimux.output.count("the old one stays")
        broken = self.dice.choice(
            [{"users": [{"name": "x", "token": "short"}]}, {"listne": ":1"}, {"mounts": {"/x": "nobody"}}]
        )
        self.world.configure(**broken)
        self.world.aimux.process.send_signal(signal.SIGHUP)
        await self.world.aimux.until(lambda: self.world.aimux.output.count("the old one stays") > said)

    async def new_certificate(self) -> None:
        """One of two, renewed in place; who connects from then on gets it."""
        issued = self.world.certificates[self.ledger.faults["new certificate"] % 2]
        self.world.certify(issued)
        async with asyncio.timeout(20):
            while await self.world.presented() != issued.certificate.public_bytes(Encoding.DER):
                await asyncio.sleep(0.1)

    async def restart(self) -> None:
        """A second process on the same socket, then SIGTERM to the first: no HTTP request may notice."""
        self.ledger.excuse("closed", "a restart", count=len(self.ledger.open) + 50, seconds=25)
        old = self.world.aimux
        await self.world.start()
        await self.world.stop(old)

    async def kill(self) -> None:
        """SIGKILL, at any moment but one in which a credential could be nowhere but in the process."""
        await self.settled()
        self.ledger.excuse("broken", "SIGKILL", count=len(self.ledger.open) + CLIENTS)
        await self.world.aimux.stop(signal.SIGKILL)
        await asyncio.sleep(0.2)  # what it had sent reaches the token endpoints
        for vendor, store in self.world.sim.tokens.items():
            # An answer with a new token may have died with the process: no design can help that.
            lost = [one for one in self.logins if one.vendor == vendor and self.world.saved(one) != one.refresh_token]
            store.leeway = len(lost)
        await self.world.start()
