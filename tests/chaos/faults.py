"""What goes wrong. Each leaves its excuse in the ledger, for what clients may see of it and no more."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from aimux.simulator import Account
from tests.e2e.process import Aimux
from tests.waiting import until

from .clients import CLIENTS, REDIRECTED
from .endpoint import request
from .failures import MASKED, REFUSED, SEEN, Turns
from .ledger import Ledger
from .logins import Logins, provider_of
from .world import ANCHORS, PACE, PATIENCE, World

MISPLACED = "sk-ant-api03-misplaced-0f9e8d7c6b5a49382716"
"""A secret where none belongs."""
BROKEN_CONFIGS: tuple[dict[str, object], ...] = (
    {"users": [{"name": "x", "token": "short"}]},
    {"users": [{"name": "x", "tokn": MISPLACED}]},
    {"providers": {"claude": {"api_key": [MISPLACED]}}},
    {"listne": ":1"},
    {"mounts": {"/x": "nobody"}},
    {"tls": {"enabled": True, "cert_path": "/nowhere"}},
    {"request_timeout": "soon"},
)
DAY = 86400.0
AHEAD, BEHIND = (90.0, DAY, 11 * DAY), (-90.0, -DAY, -400 * DAY)
"""By so many seconds the clock goes wrong: every access token looks expired 11 days ahead."""
CROWD, AT_ONCE = 300, 20
"""Connections that bring nothing but a refused request: with the clients' own, more than aimux has room for."""
MOMENT = 3.0
"""Seconds in which a request should have met an account, if it serves at all."""


@dataclass
class Faults:
    """Each is over when it has taken effect, or when what it began may come in its own time."""

    world: World
    ledger: Ledger
    dice: random.Random

    def __post_init__(self) -> None:
        self.logins = Logins(self.world, self.ledger, self.dice)
        self.victims = [account for account in self.world.accounts.values() if account.name not in ANCHORS]
        self.unplayed = {*MASKED, *SEEN}
        """Failures of the reference that no upstream has shown yet."""
        self._pair = asyncio.Lock()
        self._besides = random.Random(self.dice.random())
        """For what happens beside all the others."""
        self._masked = Turns(MASKED, self._besides)
        self._seen = Turns(SEEN, self._besides)

    # --- upstream ---------------------------------------------------------------------------------------------------

    async def fail(self) -> None:
        """Some account fails a request, so that another one has to serve it."""
        account, scenario = await self._victim(), self._masked.draw()
        played = REFUSED.get(scenario, scenario) if account.vendor == "openai" else scenario
        if not await self._play(account, scenario, played):
            self._masked.put_back(scenario)

    async def break_off(self) -> None:
        """An account fails a request, and nobody can make up for it."""
        account, scenario = await self._victim(), self._seen.draw()
        ends, status = SEEN[scenario]
        provider = provider_of(account)
        if scenario == "307":
            status = int(REDIRECTED[provider])
        with self.ledger.excusing(*ends, why=scenario, provider=provider, status=status):
            if not await self._play(account, scenario, scenario):
                self._seen.put_back(scenario)

    async def _victim(self) -> Account:
        """One that may fail: where nothing else goes wrong, so that no request meets more than its attempts."""
        async with asyncio.timeout(PATIENCE):
            while not (quiet := [account for account in self.victims if self.logins.quiet(account.vendor)]):
                await asyncio.sleep(0.05)
        return self._besides.choice(quiet)

    async def _play(self, account: Account, name: str, scenario: str) -> bool:
        """Whether a request has met it."""
        answered = account.requests
        with self._turn_may_end(account, scenario):
            account.script(f"{scenario},{PACE}")
            with contextlib.suppress(TimeoutError):
                await until(lambda: len(account.script) == 0, MOMENT)
            if len(account.script) or account.requests == answered:
                account.script.clear()
                return False
        self.unplayed.discard(name)
        return True

    def _turn_may_end(self, account: Account, scenario: str) -> contextlib.AbstractContextManager[Any]:
        """A socket has its account for life: its turn fails, or aimux asks the client to come back."""
        if account.vendor != "openai":
            return contextlib.nullcontext()
        return self.ledger.excusing("failed", "broken", "closed", why=scenario, provider="socket")

    async def kill_upstreams(self) -> None:
        """Connections of aimux to its upstreams, idle and busy ones."""
        providers = json.loads(await self.world.get("/ready"))["providers"]
        connections = self.world.upstreams()
        killed = self.dice.sample(connections, len(connections) // 4)
        for transport, _ in killed:
            transport.abort()
        busy = sum(busy for _, busy in killed)
        self.ledger.excuse("told", "broken", why="its upstream's connection was killed", count=busy)
        for provider, state in providers.items():
            healthy = state["accounts"].get("healthy", 0)
            if healthy == 2:  # and the other one may have its turn to fail
                self.ledger.excuse(
                    "failed", why="one upstream was killed, the other failed", provider=provider, count=2
                )
            if healthy < 2:  # then there is no other one to try
                for kind in (provider, "socket") if provider == "chatgpt" else (provider,):
                    self.ledger.excuse(
                        "failed", why="its only upstream was killed", provider=kind, status=502, count=busy
                    )

    # --- clients ----------------------------------------------------------------------------------------------------

    async def crowd(self) -> None:
        """More connections than there is room for, refused and their bodies still to come: nobody else may notice."""
        held: list[asyncio.StreamWriter] = []
        room = asyncio.Semaphore(AT_ONCE)
        head, end, _ = request("claude", "crowd", "", stream=True).partition(b"\r\n\r\n")

        async def one() -> None:
            async with room:
                with contextlib.suppress(OSError):
                    held.append(await self.world.connect())
                    held[-1].write(head + end)
                    await held[-1].drain()

        try:
            await asyncio.gather(*(one() for _ in range(CROWD)))
            async with asyncio.timeout(MOMENT):
                while not any(writer.transport.is_closing() for writer in held):  # the first that made room
                    await asyncio.sleep(0.01)
        finally:
            for writer in held:
                writer.transport.abort()

    # --- the disk and the clock -------------------------------------------------------------------------------------

    async def disk_full(self) -> None:
        """For what could not be saved nobody is asked: the accounts have to wait, and nothing is in memory alone."""
        async with self._full_disk():
            await asyncio.sleep(1)
            await self.logins.settled()

    @contextlib.asynccontextmanager
    async def _full_disk(self) -> AsyncIterator[Account]:
        """While it is full, and tokens have run out. The account could not be renewed; others neither."""
        await self.logins.anchored()
        account = await self.logins.well()
        async with self.world.disk.full(self.world.pid):
            async with self.world.hearing(f"account {account.name} could not be renewed"):
                for one in self.logins.weak:
                    self.logins.run_out(one)
            yield account

    async def full_disk_and_restart(self) -> None:
        """Who starts without room on the disk asks nobody either, until there is some."""
        async with self._full_disk() as account:
            await self._stop(self.world.aimux)
            await self._start()
            told = f"account {account.name} could not be renewed"
            await self.world.aimux.until(lambda: told in self.world.aimux.output, patience=PATIENCE)
            await self.logins.settled()

    async def read_only(self) -> None:
        """What can't be saved isn't renewed: the account has to wait."""
        await self.logins.anchored()
        account = await self.logins.well()
        self.world.disk.lock()
        try:
            async with self.world.hearing(f"account {account.name} could not be renewed"):
                self.logins.run_out(account)
            await asyncio.sleep(1)
        finally:
            self.world.disk.unlock()

    async def move_the_clock(self) -> None:
        """It is ahead, then behind, while limits are hit and renewals fail; what came of that ends with it."""
        try:
            await self._live_in(self.dice.choice(AHEAD))
            async with self.world.hearing("the clock was set back"):
                await self._live_in(self.dice.choice(BEHIND))
        finally:
            self.world.clock.move(0.0)

    async def _live_in(self, seconds: float) -> None:
        self.world.clock.move(seconds)
        refused = await self.logins.refuse()
        limited = [account for account in self.victims if account.vendor != refused.vendor]
        account = self.dice.choice(limited)
        if self.logins.quiet(account.vendor):
            with self._turn_may_end(account, "429:1"):
                account.script(f"429:1,{PACE}")
                await asyncio.sleep(1)
                account.script.clear()
        refused.on_refresh.clear()

    # --- the process ------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        """Another process; none starts with half a pair of key and certificate."""
        async with self._pair:
            await self.world.start()

    async def _stop(self, process: Aimux) -> None:
        """By SIGTERM: no HTTP request may notice, as the socket stays open."""
        sockets = sum(entry.kind == "socket" for entry in self.ledger.open.values())
        # A server may close between two requests, just when the next one is sent (RFC 9112, 9.3.1): it is sent again.
        self.ledger.excuse("unanswered", why="a restart", count=CLIENTS, seconds=3)
        with (
            self.ledger.excusing("closed", why="a restart", provider="socket", count=sockets + CLIENTS),
            self.ledger.excusing("failed", why="a restart", provider="socket", status=503, count=CLIENTS),
            self.ledger.excusing("failed", why="a restart", kind="asker", status=503, count=CLIENTS),  # for a socket
        ):
            await self.world.stop(process)

    async def good_reload(self) -> None:
        self.world.configure(
            log_level=self.dice.choice(["debug", "info"]), log_format=self.dice.choice(["text", "json"])
        )
        await self._reload("the configuration was reloaded")

    async def bad_reload(self) -> None:
        if self.dice.random() < 0.2:
            file = self.world.configure()
            file.write_text(file.read_text()[: file.stat().st_size // 2])
        else:
            self.world.configure(**self.dice.choice(BROKEN_CONFIGS))
        await self._reload("the old one stays")

    async def _reload(self, says: str) -> None:
        async with self.world.hearing(says):
            self.world.aimux.process.send_signal(signal.SIGHUP)

    async def new_certificate(self) -> None:
        """One of two, renewed in place, its key a while before; who connects from then on gets it."""
        self.world.certificates.reverse()
        issued = self.world.certificates[0]
        async with self._pair:
            self.world.write("key.pem", issued.key_pem())
            await asyncio.sleep(self._besides.uniform(0, 3))
            self.world.certify(issued)
        async with asyncio.timeout(60):
            while await self.world.presented() != issued.certificate.public_bytes(Encoding.DER):
                await asyncio.sleep(0.2)

    async def restart(self) -> None:
        """A second process on the same socket, then SIGTERM to the first, or the other way round as systemd does it."""
        old = self.world.aimux
        overlapping = self.dice.random() < 0.5
        if overlapping:
            await self.logins.settled()  # the second process reads what the first one has written
            await self._start()
        await self._stop(old)
        if not overlapping:
            await self._start()

    async def kill(self) -> None:
        """SIGKILL, at any moment but one in which a credential could be nowhere but in the process."""
        await self.logins.settled()
        # Who kept a connection finds it closed when the next request is due, within a second.
        self.ledger.excuse("unanswered", why="SIGKILL", count=CLIENTS, seconds=2)
        with (
            self.ledger.excusing("told", "broken", why="SIGKILL", count=len(self.ledger.open)),
            self.ledger.excusing("unconnected", why="SIGKILL", count=CLIENTS),
        ):
            await self.world.aimux.stop(signal.SIGKILL)
        await asyncio.sleep(0.2)  # what it had sent reaches the token endpoints
        # An answer with a new token may have died with the process: no design can help that.
        lost = [account for account in self.logins.all if self.world.saved(account) != account.refresh_token]
        await self._start()
        await self.logins.forgiven(lost)
