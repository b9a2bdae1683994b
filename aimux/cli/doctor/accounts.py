"""Each account as a start would find it."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aimux.accounts import AccountPool, PoolOptions, file_vault, stores
from aimux.accounts.twins import twins
from aimux.accounts.unknown import unknown_accounts
from aimux.accounts.vault import DEFAULT, VaultError
from aimux.cli.doctor.finding import Finding
from aimux.storage import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aimux.accounts import Account
    from aimux.config import Config
    from aimux.plugin.http import Http
    from aimux.plugin.provider import Provider

SOON = 7 * 86400.0
"""Warn this long before the end of a credential that can't be renewed."""


async def of_accounts(
    config: Config, providers: Mapping[str, Provider], http: Http
) -> tuple[list[Finding], list[Provider]]:
    """Each account's state, and the providers that have any account. Nothing is renewed or written."""
    found: list[Finding] = []
    used: list[Provider] = []
    named: dict[str, list[str]] = {}
    now = time.time()
    with _told_by_vault() as told:
        try:
            async with stores(config) as (vault, state):
                options = PoolOptions(refresh_before_expiry=config.refresh_before_expiry, state=state)
                for name, provider in providers.items():
                    pool = AccountPool(provider, vault, http, options=options)
                    try:
                        await pool.load()
                    except VaultError as error:
                        found.append(Finding("error", f"accounts of {name}", error.reason, error.remedy))
                        continue
                    found += [_account(account, now) for account in pool.accounts.values()]
                    found += _twins(pool)
                    named[name] = list(pool.accounts)
                    if pool.accounts:
                        used.append(provider)
                    elif config.providers is not None:
                        remedy = f"aimux login {name}{_places(config, provider)}, or set providers.{name}.api_key"
                        found.append(Finding("error", f"accounts of {name}", "there is none", remedy))
        except StorageError:  # reported by the check of the database
            return found, used
    for unknown in unknown_accounts(config, named):
        found.append(Finding("warning", "configuration", f"{unknown.where}: {unknown.message}", unknown.remedy))
    if not used and config.providers is None and not found:
        remedy = f"aimux login PROVIDER, aimux import{_places(config, *providers.values())}"
        found.append(Finding("error", "accounts", "there is none", remedy))
    return found + [Finding("warning", "accounts", message) for message in told], used


def _places(config: Config, *providers: Provider) -> str:
    """Where a login may be put as a file."""
    if config.database.url is not None:
        return ""
    return ", or put a login at " + " or ".join(
        str(config.state_dir / provider.instance / provider.credential_file) for provider in providers
    )


def _twins(pool: AccountPool) -> Iterator[Finding]:
    """Accounts that share one login, reported once for all of them."""
    for name, others in twins(pool.accounts).items():
        same = sorted([name, *others], key=lambda one: (one != DEFAULT, one))
        if name == same[0]:
            full = [f"{pool.provider.instance}/{one}" for one in same]
            message = f"the same login as {' and '.join(full[1:])}: they share its limits"
            if (credential := pool.accounts[name].credential) is not None and credential.renewable:
                message += ", and the copy that is renewed second is logged out"
            yield Finding("warning", f"account {full[0]}", message, f"keep one: aimux accounts remove {full[-1]}")


def _account(account: Account, now: float) -> Finding:
    subject = f"account {account.provider}/{account.name}"
    state, credential = account.state(now), account.credential
    what = ", ".join(part for part in (account.kind, account.plan) if part)
    if state.status == "parked":
        return Finding("error", subject, f"parked: {state.reason}", state.remedy)
    if state.status != "healthy":
        return Finding("warning", subject, f"{what}; {state.status}: {state.reason}", state.remedy)
    if credential is None or credential.expires_at is None:
        return Finding("ok", subject, f"{what}; does not expire")
    left = credential.expires_at - now
    when = f"expires in {_span(left)}" if left > 0 else f"expired {_span(-left)} ago"
    if credential.renewable:
        return Finding("ok", subject, f"{what}; {when}, aimux renews it")
    if left > SOON:
        return Finding("ok", subject, f"{what}; {when} and can't be renewed")
    return Finding("warning" if left > 0 else "error", subject, f"{what}; {when} and can't be renewed", "log in again")


def _span(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(1, seconds // 60):.0f} min"


@contextmanager
def _told_by_vault() -> Iterator[list[str]]:
    """What the vault logs meanwhile, such as a file mode that it corrected. The rest is in the accounts' state."""
    told: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name == file_vault.log.name:
                told.append(record.getMessage())

    logger, listener = logging.getLogger("aimux.accounts"), Listener(logging.WARNING)
    logger.addHandler(listener)
    propagated, logger.propagate = logger.propagate, False
    try:
        yield told
    finally:
        logger.removeHandler(listener)
        logger.propagate = propagated
