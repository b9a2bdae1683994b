"""What goes wrong. Each leaves its excuse in the ledger, for what clients may see of it and no more."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import time
from dataclasses import dataclass

from cryptography.hazmat.primitives.serialization import Encoding

from aimux.simulator import Account

from .clients import CLIENTS
from .failures import MASKED, REFUSALS, REFUSED, SEEN
from .ledger import Ledger
from .world import ANCHORS, PACE, World

BROKEN_CONFIGS: tuple[dict[str, object], ...] = (
    {"users": [{"name": "x", "token": "short"}]},
    {"listne": ":1"},
    {"mounts": {"/x": "nobody"}},
    {"tls": {"enabled": True, "cert_path": "/nowhere"}},
    {"request_timeout": "soon"},
)
LOGINS = ("void", "void", "valid", "403:disabled", "403:organization")
"""What is wrong with an account before somebody logs in again."""
PATIENCE = 60.0
"""Seconds for a credential to be renewed and saved: pauses between failures grow."""
DAY = 86400.0
AHEAD, BEHIND = (90.0, DAY, 11 * DAY), (-90.0, -DAY, -400 * DAY)
"""By so many seconds the clock goes wrong: every access token looks expired 11 days ahead."""


def provider_of(account: Account) -> str:
    return "claude" if account.vendor == "anthropic" else "chatgpt"


@dataclass
class Faults:
    """Each is over when it has taken effect, or when what it began may come in its own time."""

    world: World
    ledger: Ledger
    dice: random.Random

    def __post_init__(self) -> None:
        self.victims = [account for account in self.world.accounts.values() if account.name not in ANCHORS]
        self.logins = [account for account in self.world.accounts.values() if account.kind == "oauth"]
        self.weak = [account for account in self.victims if account.kind == "oauth"]
        self._certificate_dice = random.Random(self.dice.random())
        self._pair = asyncio.Lock()
        self._scenarios = {kind: self._turns(kind) for kind in (MASKED, tuple(SEEN), REFUSALS, LOGINS)}

    def _turns(self, kind: tuple[str, ...]) -> list[str]:
        return self.dice.sample(kind, len(kind))

    def _draw(self, kind: tuple[str, ...]) -> str:
        """One after the other before any comes again."""
        if not self._scenarios[kind]:
            self._scenarios[kind] = self._turns(kind)
        return self._scenarios[kind].pop()

    # --- upstream ---------------------------------------------------------------------------------------------------

    async def fail(self) -> None:
        """Some account fails a request, so that another one has to serve it."""
        account = self._idle_victim()
        if account is not None:  # one at a time: then no request can meet more than its attempts
            scenario = self._draw(MASKED)
            if scenario in REFUSED:
                if account.expires_at <= time.time():
                    return  # a token that is refused anew after its renewal parks the account, and rightly so
                scenario = REFUSED[scenario] if account.vendor == "openai" else scenario
            account.script(f"{scenario},{PACE}")
            self._turn_may_end(account, scenario)

    async def break_off(self) -> None:
        account = self._idle_victim()
        if account is not None:
            scenario = self._draw(tuple(SEEN))
            ends, status = SEEN[scenario]
            account.script(f"{scenario},{PACE}")
            self.ledger.excuse(*ends, why=scenario, provider=provider_of(account), status=status, seconds=60)
            self._turn_may_end(account, scenario)

    def _idle_victim(self) -> Account | None:
        """One that has nothing more in store."""
        idle = [account for account in self.victims if not len(account.script)]
        return self.dice.choice(idle) if idle else None

    def _turn_may_end(self, account: Account, scenario: str) -> None:
        """A socket has its account for life: its turn fails, or aimux asks the client to come back."""
        if account.vendor == "openai":
            self.ledger.excuse("failed", "broken", "closed", why=scenario, provider="socket", seconds=60)

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
            if state["accounts"].get("healthy", 0) < 2:  # then there is no other one to try
                self.ledger.excuse(
                    "failed", why="its only upstream was killed", provider=provider, status=502, count=busy
                )

    # --- credentials ------------------------------------------------------------------------------------------------

    def _expire(self, account: Account) -> None:
        """Its access tokens run out before their time, and no refusal is in store for the next one."""
        account.script.clear()
        account.expire()

    async def expire(self) -> None:
        """The 401 has to lead to one renewal."""
        for account in self.dice.sample(self.logins, 2):
            if self.dice.random() < 0.2 and not len(account.on_refresh):
                account.on_refresh("no-rotation")
            self._expire(account)

    async def refuse(self) -> None:
        """The token endpoint fails for a while."""
        account = self.dice.choice(self.weak)
        if not len(account.on_refresh):
            account.on_refresh(self._draw(REFUSALS))
            self._expire(account)

    async def lose_an_answer(self) -> None:
        """A token is rotated, and the answer with the new one gets lost; the server forgives the old one once."""
        await self.settled()
        now = time.time()
        # One whose renewals failed before is not tried again for longer and longer.
        well = [one for one in self.weak if one.expires_at > now and (await self._told(one))["status"] == "healthy"]
        if not well:
            return
        account = self.dice.choice(well)
        account.on_refresh.clear()
        account.on_refresh(self.dice.choice(["reset:0", "cut:0"]))
        await self._forgiven([account])

    async def _forgiven(self, lost: list[Account]) -> None:
        """Until each of them has a new token in spite of its old one, which is good just once more."""
        for account in lost:
            self.world.sim.tokens[account.vendor].leeway += 1
            self._expire(account)
        async with asyncio.timeout(PATIENCE):
            while any(store.leeway for store in self.world.sim.tokens.values()):
                await asyncio.sleep(0.05)
        await self.settled()

    async def new_login(self) -> None:
        """An account's login is void, or refused for good; then somebody logs in again, with another program."""
        account = self.dice.choice(self.weak)
        kind = self._draw(LOGINS)
        if kind.startswith("403") and account.vendor == "openai":
            kind = "void"
        if kind == "void":
            account.revoke()
            if account.vendor == "anthropic":
                # The refusal of an asker's request is broken off as it asked: its words, which count, are not complete.
                self.ledger.excuse("told", "broken", why="half a refusal", provider="claude", status=403, count=3)
        elif kind != "valid":
            account.script.clear()
            account.script.always = kind
        if kind != "valid":
            await self._noticed(account)
        self._log_in(account)

    async def log_in_again(self) -> None:
        """What a person does about accounts that two refusals in a row have parked, which is right. No other parks."""
        for account in self.logins:
            told = await self._told(account)
            if told["status"] == "parked" and "did not accept the credential" in str(told["reason"]):
                self._log_in(account)

    def _log_in(self, account: Account) -> None:
        account.script.clear()
        account.on_refresh.clear()
        self.world.sim.tokens[account.vendor].login(account, account.family.client_id)
        self.world.put(account)

    async def _noticed(self, account: Account) -> None:
        """Until the account is parked. One that cools down is not asked for a while, and then it need not be."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(3):
                while (await self._told(account))["status"] != "parked":
                    await asyncio.sleep(0.1)

    async def _told(self, account: Account) -> dict[str, object]:
        """As aimux has it."""
        path = f"/api/v1/accounts/{provider_of(account)}/{account.name}"
        told: dict[str, object] = json.loads(await self.world.get(path, self.world.admin_key))
        return told

    async def settled(self) -> None:
        """Until every credential lies on the disk as it was issued last."""
        for account in self.logins:
            try:
                async with asyncio.timeout(PATIENCE):
                    while self.world.saved(account) != account.refresh_token:
                        await asyncio.sleep(0.05)
            except TimeoutError as error:
                log = [line for process in self.world.outputs for line in process.stderr if account.name in line]
                log = [line for line in log if "aimux.accounts" in line]
                done = [name for _, _, name in self.ledger.history]
                message = f"the last token of {account.name} is not saved, after {done}"
                raise AssertionError("\n".join([message, *log[-20:]])) from error

    # --- the disk and the clock -------------------------------------------------------------------------------------

    async def disk_full(self) -> None:
        """What is renewed meanwhile is served from memory, and saved when there is room again."""
        self.world.disk.fill(self.world.pid)
        try:
            for account in self.logins:
                self._expire(account)
            await asyncio.sleep(1.5)
        finally:
            self.world.disk.empty(self.world.pid)

    async def read_only(self) -> None:
        """What can't be saved isn't renewed: the account has to wait."""
        self.world.disk.lock()
        try:
            self._expire(self.dice.choice(self.weak))
            await asyncio.sleep(1.5)
        finally:
            self.world.disk.unlock()

    async def move_the_clock(self) -> None:
        """It is ahead, then behind, while limits are hit and renewals fail; what came of that ends with it."""
        for account in self.victims:
            account.script.clear()
        try:
            for moves in (AHEAD, BEHIND):
                self.world.clock.move(self.dice.choice(moves))
                for account in self.victims:
                    account.script(f"429:1,{PACE}")
                    self._turn_may_end(account, "429:1")
                await self.refuse()
                await asyncio.sleep(1.5)
                for account in self.victims:
                    account.script.clear()
                    account.on_refresh.clear()
        finally:
            self.world.clock.move(0.0)

    # --- the process ------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        """Another process; none starts with half a pair of key and certificate."""
        async with self._pair:
            await self.world.start()

    async def good_reload(self) -> None:
        self.world.configure(
            log_level=self.dice.choice(["debug", "info"]), log_format=self.dice.choice(["text", "json"])
        )
        await self._reload("the configuration was taken again")

    async def bad_reload(self) -> None:
        if self.dice.random() < 0.2:
            (self.world.folder / "config.json").write_text('{"users": [')
        else:
            self.world.configure(**self.dice.choice(BROKEN_CONFIGS))
        await self._reload("the old one stays")

    async def _reload(self, says: str) -> None:
        aimux = self.world.aimux
        said = aimux.output.count(says)
        aimux.process.send_signal(signal.SIGHUP)
        await aimux.until(lambda: aimux.output.count(says) > said)

    async def new_certificate(self) -> None:
        """One of two, renewed in place, its key a while before; who connects from then on gets it."""
        self.world.certificates.reverse()
        issued = self.world.certificates[0]
        async with self._pair:
            self.world.write("key.pem", issued.key_pem())
            await asyncio.sleep(self._certificate_dice.uniform(0, 3))
            self.world.certify(issued)
        async with asyncio.timeout(60):
            while await self.world.presented() != issued.certificate.public_bytes(Encoding.DER):
                await asyncio.sleep(0.2)

    async def restart(self) -> None:
        """A second process on the same socket, then SIGTERM to the first, or the other way round as systemd does it:
        no HTTP request may notice."""
        old = self.world.aimux
        overlapping = self.dice.random() < 0.5
        if overlapping:
            await self.settled()  # the second process reads what the first one has written
            await self._start()
        sockets = sum(entry.kind == "socket" for entry in self.ledger.open.values())
        self.ledger.excuse("closed", why="a restart", provider="socket", count=sockets + CLIENTS, seconds=25)
        self.ledger.excuse("failed", why="a restart", provider="socket", status=503, count=CLIENTS, seconds=25)
        # A server may close between two requests, just when the next one is sent (RFC 9112, 9.3.1): it is sent again.
        self.ledger.excuse("unanswered", why="a restart", count=CLIENTS, seconds=3)
        await self.world.stop(old)
        if not overlapping:
            await self._start()

    async def kill(self) -> None:
        """SIGKILL, at any moment but one in which a credential could be nowhere but in the process."""
        await self.settled()
        self.ledger.excuse("told", "broken", why="SIGKILL", count=len(self.ledger.open), seconds=0.5)
        self.ledger.excuse("unanswered", "unconnected", why="SIGKILL", count=CLIENTS)
        await self.world.aimux.stop(signal.SIGKILL)
        await asyncio.sleep(0.2)  # what it had sent reaches the token endpoints
        # An answer with a new token may have died with the process: no design can help that.
        lost = [account for account in self.logins if self.world.saved(account) != account.refresh_token]
        await self._start()
        await self._forgiven(lost)
