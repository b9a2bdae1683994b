"""What goes wrong with credentials, and what somebody does about it."""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass

from aimux.simulator import Account
from tests.waiting import until

from .failures import REFUSALS, Turns
from .ledger import Ledger
from .world import ANCHORS, PATIENCE, World

LOGINS = ("void", "void", "valid", "403:disabled", "403:organization")
"""What is wrong with an account before somebody logs in again."""
REFUSED_TWICE = ("did not accept the credential", "the OAuth token has been revoked")
"""Why an account is parked whose token was refused, and the one that a renewal brought as well."""


def provider_of(account: Account) -> str:
    return "claude" if account.vendor == "anthropic" else "chatgpt"


@dataclass
class Logins:
    world: World
    ledger: Ledger
    dice: random.Random

    def __post_init__(self) -> None:
        self.all = [account for account in self.world.accounts.values() if account.kind == "oauth"]
        self.weak = [account for account in self.all if account.name not in ANCHORS]
        """Those that may fail."""
        self._refusals = Turns(REFUSALS, self.dice)
        self._logins = Turns(LOGINS, self.dice)

    # --- the faults -------------------------------------------------------------------------------------------------

    async def expire(self) -> None:
        """The 401 has to lead to one renewal."""
        for account in self.dice.sample(self.all, 2):
            if self.dice.random() < 0.2 and not len(account.on_refresh):
                account.on_refresh("no-rotation")
            self.run_out(account)

    async def refuse(self) -> Account:
        """The token endpoint fails for a while. Returns whose."""
        account = await self.well()
        async with self.world.hearing(f"account {account.name} could not be renewed"):
            account.on_refresh.clear()
            account.on_refresh(self._refusals.draw())
            self.run_out(account)
        return account

    async def lose_an_answer(self) -> None:
        """A token is rotated, and the answer with the new one gets lost; the server forgives the old one once."""
        await self.settled()
        account = await self.well()
        account.on_refresh.clear()
        account.on_refresh(self.dice.choice(["reset:0", "cut:0"]))
        await self.forgiven([account])

    async def write_back(self) -> None:
        """Another program writes the file that it had read before a renewal: the living tokens are put into it."""
        await self.settled()
        account = await self.well()
        account.on_refresh.clear()
        stale, token = self.world.login(account).read_bytes(), account.refresh_token
        self.run_out(account)
        await until(lambda: account.refresh_token != token, PATIENCE)
        await self.settled()
        async with self.world.hearing(f"account {account.name}: another program wrote an old login back"):
            self.world.login(account).write_bytes(stale)
        await self.settled()

    async def new_login(self) -> None:
        """An account's login is void, or refused for good; then somebody logs in again, with another program."""
        account = await self.well()
        kind = self._logins.draw()
        if kind == "valid":
            self._log_in(account)
            return
        if kind == "void" or account.vendor == "openai":
            account.script.clear()
            account.revoke()
            self._half_refused(account, 403 if account.vendor == "anthropic" else 401)
        else:
            account.script.clear()
            account.script.always = kind
        told: dict[str, object] = {}
        try:
            async with asyncio.timeout(PATIENCE):
                while (told := await self._told(account))["status"] != "parked":
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{kind}: {account.name} is not parked: {told}") from None
        async with self.world.hearing(f"account {account.name} is back"):
            self._log_in(account)

    # --- what they are made of --------------------------------------------------------------------------------------

    def run_out(self, account: Account) -> None:
        """Its access tokens expire before their time. Nothing else is in store for who meets that: a request has three
        attempts, and the refusal takes one."""
        for other in self.world.accounts.values():
            if other.vendor == account.vendor:
                other.script.clear()
        account.expire()
        self._half_refused(account, 401)
        # What the others say to an asker tells it less than that, or as little.
        why = f"{account.name} can't be renewed for now"
        self.ledger.excuse(
            "failed", why=why, provider=provider_of(account), kind="asker", status=503, count=6, seconds=30
        )

    def _half_refused(self, account: Account, status: int) -> None:
        """The refusal of an asker's request ends early, or is broken off, as it asked: its words, which count, are not
        complete."""
        ends, provider = ("told", "broken", "failed"), provider_of(account)
        self.ledger.excuse(
            *ends, why="half a refusal", provider=provider, kind="asker", status=status, count=3, seconds=2
        )

    def quiet(self, vendor: str) -> bool:
        """Whether nothing is in store at this vendor, and every token good."""
        accounts = [account for account in self.world.accounts.values() if account.vendor == vendor]
        logins = [account for account in accounts if account in self.all]
        return not any(len(account.script) or account.script.always for account in accounts) and all(
            account.expires_at > time.time() and not account.family.revoked for account in logins
        )

    async def anchored(self) -> None:
        """Until the anchors' tokens are good, and on the disk: they serve whatever comes."""
        anchors = [account for account in self.all if account.name in ANCHORS]
        await until(
            lambda: all(one.expires_at > time.time() and self.world.saved(one) == one.refresh_token for one in anchors),
            PATIENCE,
        )

    async def well(self) -> Account:
        """A weak one that serves, so that the next requests will ask it. Those whose renewals failed come back."""
        async with asyncio.timeout(PATIENCE):
            while True:
                now = time.time()
                well = [
                    account
                    for account in self.weak
                    if account.expires_at > now and (await self._told(account))["status"] == "healthy"
                ]
                if well:
                    return self.dice.choice(well)
                await self.log_in_again()
                await asyncio.sleep(0.2)

    async def forgiven(self, lost: list[Account]) -> None:
        """Until each of them has a new token in spite of its old one, which is good just once more."""
        for account in lost:
            self.world.sim.tokens[account.vendor].leeway += 1
            self.run_out(account)
        await until(lambda: not any(store.leeway for store in self.world.sim.tokens.values()), PATIENCE)
        await self.settled()

    async def log_in_again(self) -> None:
        """What a person does about accounts that two refusals in a row have parked, which is right. No other parks."""
        for account in self.all:
            told = await self._told(account)
            if told["status"] == "parked" and any(words in str(told["reason"]) for words in REFUSED_TWICE):
                self._log_in(account)

    def _log_in(self, account: Account) -> None:
        account.script.clear()
        account.on_refresh.clear()
        self.world.sim.tokens[account.vendor].login(account, account.family.client_id)
        self.world.put(account)

    async def _told(self, account: Account) -> dict[str, object]:
        """As aimux has it."""
        path = f"/api/v1/accounts/{provider_of(account)}/{account.name}"
        told: dict[str, object] = json.loads(await self.world.get(path, self.world.admin_key))
        return told

    async def settled(self) -> None:
        """Until every credential lies on the disk as it was issued last."""
        for account in self.all:
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
