"""A new login on its way into the vault: under which name, and what it may replace."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aimux.accounts.credentials import parse_credential
from aimux.accounts.twins import same_login
from aimux.accounts.vault import DEFAULT, Conflict, Missing, Unreadable
from aimux.control.api.problems import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aimux.accounts import Account, AccountPool, Vault
    from aimux.plugin import Credential


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where a login goes: a name (None: aimux chooses), and whether it may replace an account of that name."""

    name: str | None
    replace: bool


async def reserve(pool: AccountPool, name: str | None, *, replace: bool) -> Wanted:
    """Before a person logs in: refused 409 if the result could not be kept.

    A login without a name goes to the account that already has it, or to a new one.
    """
    if name is None:
        return Wanted(None, replace=True)
    await pool.load()
    _refuse_taken(pool, name, Wanted(name, replace))
    return Wanted(name, replace)


async def save(vault: Vault, pool: AccountPool, raw: bytes, wanted: Wanted) -> Account:
    """Put a credential file into the vault, and use it. Refused 409 if it would replace an account.

    A login that is shared with another program is not written to: the account gets a file of its own instead.
    Raises CredentialError, VaultError.
    """
    instance, file_name = pool.provider.instance, pool.provider.credential_file
    credential = parse_credential(pool.provider, raw)
    for last in (False, False, True):
        await pool.load()
        name = wanted.name or choose_name(credential, pool.accounts)
        _refuse_taken(pool, name, wanted)
        try:
            before = await vault.read(instance, name, file_name)
        except (Missing, Unreadable):
            before = None
        try:
            await vault.write(instance, name, file_name, raw, expect=before, detach=True)
        except (Conflict, Missing):
            if last:
                raise
            continue  # a renewal, or somebody else's login, was faster: look again
        break
    await pool.load()
    return pool.accounts[name]


def refuse_configured(account: Account) -> None:
    """Refused 409 for an account that exists in the configuration only."""
    if account.renewer is None:
        full, remedy = f"{account.provider}/{account.name}", f"change providers.{account.provider}.api_key there"
        raise Refused(409, "configured", f"{full} comes from the configuration.", remedy=remedy, account=full)


def _refuse_taken(pool: AccountPool, name: str, wanted: Wanted) -> None:
    """Even if its credential can't be read."""
    account = pool.accounts.get(name)
    if account is None:
        return
    refuse_configured(account)
    if wanted.replace:
        return
    full = f"{account.provider}/{name}"
    remedy = "replace it, or choose another name"
    raise Refused(409, "account-exists", f"There is an account {full} already.", remedy=remedy, account=full)


def choose_name(credential: Credential, accounts: Mapping[str, Account]) -> str:
    """The name of the account that has this very login; else `default` if it is free, else one made from the
    person's."""
    for name, account in accounts.items():
        if account.credential is not None and same_login(credential, account.credential):
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
