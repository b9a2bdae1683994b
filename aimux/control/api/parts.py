"""What the operations work on."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aimux.accounts.login import Logins
from aimux.accounts.twins import twins
from aimux.accounts.vault import Away
from aimux.control.api.problems import Refused
from aimux.control.api.views import shown
from aimux.people import Actor, audit
from aimux.people.reach import serves
from aimux.storage import StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from aimux.accounts import Account, AccountPool, Vault
    from aimux.control.api import models
    from aimux.control.api.saving import Wanted
    from aimux.control.principal import Principal
    from aimux.control.running import Reload, Running
    from aimux.gateway.deposit_rows import DepositRows
    from aimux.limits.keeper import LimitKeeper
    from aimux.metering.journal import Journal
    from aimux.metering.metering import Metering
    from aimux.notices import Notice
    from aimux.people import People
    from aimux.people.trust import Trust
    from aimux.people.upkeep import Uses
    from aimux.plugin import Http
    from aimux.relay.pool import Pool
    from aimux.storage import Database


PATIENCE = 3.0
"""Seconds that who only reads waits for a database that he can do without: one that hangs lets wait for a minute …"""
LESS = 1.0
"""… and where something is known to be wrong with it."""


def patience(database: Database) -> asyncio.Timeout:
    """For a block that can do without the database."""
    return asyncio.timeout(PATIENCE if database.trouble is None else LESS)


@dataclass(slots=True)
class Parts:
    """The parts of a running aimux, or of none: then the same operations work on its files."""

    pools: Mapping[str, AccountPool]
    vault: Vault
    http: Http
    relay: Pool
    journal: Journal
    people: People
    limits: LimitKeeper
    metering: Metering
    uses: Uses
    deposits: DepositRows
    notices: Sequence[Notice] = ()
    """The latest notices, newest last."""
    trust: Trust | None = None
    """None: no server runs, so nothing is signed."""
    reload: Callable[[], Awaitable[Reload]] | None = None
    """Raises ConfigError. None: no server runs."""
    process: Running | None = None
    """None: the same."""
    planning: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a plan is being made."""
    logins: Logins[Wanted] = field(init=False)

    def __post_init__(self) -> None:
        self.logins = Logins(self.http)

    @property
    def running(self) -> Running:
        """Refused 409 if no server runs."""
        if self.process is None:
            raise Refused(409, "no-server", "Only a running server can tell.", remedy="start it: aimux serve")
        return self.process

    def pool(self, provider: str) -> AccountPool:
        """Refused if there is no such provider."""
        pool = self.pools.get(provider)
        if pool is None:
            known = ", ".join(sorted(self.pools)) or "none"
            raise Refused(404, "not-found", f"There is no provider {provider!r}; there are: {known}.")
        return pool

    async def look(self, pool: AccountPool) -> None:
        """Look for accounts, for who only reads: those that are known while the database is away. Raises VaultError."""
        with contextlib.suppress(Away, TimeoutError):
            async with patience(self.people.database):
                await pool.load()

    async def account(self, provider: str, name: str, *, changes: bool = True) -> tuple[AccountPool, Account]:
        """The account as its file is now. `changes`: the caller does more than read. Refused if there is none."""
        pool = self.pool(provider)
        await (pool.load() if changes else self.look(pool))
        account = pool.accounts.get(name)
        if account is None:
            raise Refused(404, "not-found", f"There is no account {provider}/{name}.")
        return pool, account

    async def show(self, pool: AccountPool, account: Account) -> models.Account:
        """The account as the API shows it."""
        links = await self.vault.links(pool.provider.instance, pool.provider.credential_file)
        same_as = twins(pool.accounts).get(account.name, [])
        return shown(
            account,
            links.get(account.name),
            same_as,
            serves(self.people.directory, account.settings),
            settings_configured=pool.configured(account.name),
        )

    async def note(
        self,
        caller: Principal | None,
        action: str,
        target: str,
        *,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
    ) -> None:
        """Note a change in the audit log. The change holds even if that can't be written now."""
        actor = caller.actor if caller is not None else Actor("callback")
        await audit.note(self.people.database, actor, action, target, before=before, after=after)

    async def keep(self) -> str:
        """Write to disk what changed about accounts. Returns why that is impossible; "" if it is written."""
        states = {pool.options.state for pool in self.pools.values()}
        for state in states:
            if state is not None:
                await state.flush(now=True)
        return "; ".join(sorted(state.trouble for state in states if state is not None and state.trouble))

    async def kept(self) -> None:
        """After a person's change to an account: raises StorageError if it would not outlive this process."""
        if not (trouble := await self.keep()):
            return
        if self.process is None:
            raise StorageError(f"nothing was changed: {trouble}", remedy="see to that, and try again")
        remedy = "see to that: until it is written, a restart undoes the change"
        raise StorageError(f"it holds for now, and is not kept: {trouble}", remedy=remedy)
