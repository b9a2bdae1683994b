"""What the operations work on, and what several of them do."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aimux.accounts.login import Logins
from aimux.accounts.vault import DEFAULT, Conflict, Missing
from aimux.control.api import models
from aimux.control.api.problems import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aimux.accounts import Account, AccountPool, Vault
    from aimux.metering.journal import Journal
    from aimux.plugin import Credential, Http
    from aimux.relay.pool import Pool


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where a login goes: a name (None: aimux chooses), and whether the account that has it gives way."""

    name: str | None
    replace: bool


@dataclass(slots=True)
class Desk:
    """The parts of a running aimux, or of none: then the same operations work on its files."""

    pools: Mapping[str, AccountPool]
    vault: Vault
    http: Http
    relay: Pool
    journal: Journal
    logins: Logins[Wanted] = field(init=False)

    def __post_init__(self) -> None:
        self.logins = Logins(self.http)

    def pool(self, provider: str) -> AccountPool:
        """Refused where there is no such provider."""
        pool = self.pools.get(provider)
        if pool is None:
            known = ", ".join(sorted(self.pools)) or "none"
            raise Refused(404, "not-found", f"There is no provider {provider!r}; there are: {known}.")
        return pool

    async def account(self, provider: str, name: str) -> tuple[AccountPool, Account]:
        """As its file is now. Refused where there is none."""
        pool = self.pool(provider)
        await pool.load()
        account = pool.accounts.get(name)
        if account is None:
            raise Refused(404, "not-found", f"There is no account {provider}/{name}.")
        return pool, account

    async def show(self, pool: AccountPool, account: Account) -> models.Account:
        """What the API says of it."""
        links = await self.vault.links(pool.provider.instance, pool.provider.credential_file)
        return shown(account, links.get(account.name))

    async def keep(self) -> None:
        """Have what changed about accounts on disk."""
        for state in {pool.options.state for pool in self.pools.values()} - {None}:
            assert state is not None
            await state.flush(now=True)

    async def reserve(self, pool: AccountPool, name: str | None, *, replace: bool) -> Wanted:
        """Before a person goes and logs in: refused 409 where the result would have no place.

        A login without a name goes to the account that has it already, or to a new one.
        """
        if name is None:
            return Wanted(None, replace=True)
        await pool.load()
        self._refuse_taken(pool, name, Wanted(name, replace))
        return Wanted(name, replace)

    async def save(self, pool: AccountPool, raw: bytes, wanted: Wanted) -> Account:
        """Put a credential file into the vault, and use it. Refused 409 where it would take an account's place.

        A login that is shared with another program is not written to: the account gets a file of its own instead.
        Raises CredentialError, VaultError.
        """
        instance, file_name = pool.provider.instance, pool.provider.credential_file
        credential = pool.provider.parse_credential(raw)
        for last in (False, False, True):
            await pool.load()
            name = wanted.name or choose_name(credential, pool.accounts)
            self._refuse_taken(pool, name, wanted)
            try:
                before = await self.vault.read(instance, name, file_name)
            except Missing:
                before = None
            try:
                await self.vault.write(instance, name, file_name, raw, expect=before, detach=True)
            except (Conflict, Missing):
                if last:
                    raise
                continue  # a renewal, or somebody else's login, was faster: look again
            break
        await pool.load()
        return pool.accounts[name]

    def refuse_configured(self, account: Account) -> None:
        """Refused 409 for an account that exists in the configuration only."""
        if account.renewer is None:
            full, remedy = f"{account.provider}/{account.name}", f"change providers.{account.provider}.api_key there"
            raise Refused(409, "configured", f"{full} comes from the configuration.", remedy=remedy, account=full)

    def _refuse_taken(self, pool: AccountPool, name: str, wanted: Wanted) -> None:
        """Also where its credential can't be read."""
        account = pool.accounts.get(name)
        if account is None:
            return
        self.refuse_configured(account)
        if wanted.replace:
            return
        full = f"{account.provider}/{name}"
        remedy = "replace it, or choose another name"
        raise Refused(409, "account-exists", f"There is an account {full} already.", remedy=remedy, account=full)


def choose_name(credential: Credential, accounts: Mapping[str, Account]) -> str:
    """The name of the account that has this very login; else `default` if it is free, else one after the person."""
    for name, account in accounts.items():
        if account.credential is not None and _same_login(credential, account.credential):
            return name
    if DEFAULT not in accounts:
        return DEFAULT
    base = re.sub(r"[^A-Za-z0-9._+-]+", "-", (credential.email or "").partition("@")[0]).strip("._+-")[:48]
    if base and base not in accounts:
        return base
    number = 2
    while f"{base or 'account'}-{number}" in accounts:
        number += 1
    return f"{base or 'account'}-{number}"


def _same_login(one: Credential, other: Credential) -> bool:
    if one.secret == other.secret:
        return True
    who = (one.kind, one.account_id, one.organization)
    return one.account_id is not None and who == (other.kind, other.account_id, other.organization)


def shown(account: Account, shared_with: str | None) -> models.Account:
    """An account as the API shows it. Nothing of its credential but whose it is and when it ends."""
    now = time.time()
    state, credential = account.state(now), account.credential
    return models.Account(
        provider=account.provider,
        name=account.name,
        kind=account.kind,
        plan=account.plan,
        email=credential.email if credential else None,
        organization=account.organization,
        status=state.status,
        reason=state.reason,
        remedy=state.remedy,
        until=moment(state.until),
        expires_at=moment(credential.expires_at if credential else None),
        renewable=credential is not None and credential.renewable,
        limits=[
            models.Limit(name=w.name, used=w.used, status=w.status, resets_at=moment(w.resets_at), scope=w.scope)
            for w in account.limits.values()
        ],
        in_flight=account.in_flight,
        last_used=moment(account.last_used),
        weight=account.settings.weight,
        priority=account.settings.priority,
        groups=list(account.settings.groups),
        shared_with=shared_with,
        configured=account.renewer is None,
    )


def moment(seconds: float | None) -> datetime | None:
    """Unix seconds as a date, without fractions; None for what no calendar has."""
    try:
        return None if seconds is None else datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        return None
