"""What has to outlive a restart and is no secret: cooldowns, limit windows, parked and disabled accounts."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from aimux.accounts import files
from aimux.accounts.account import Parked  # noqa: TC001 - pydantic reads the annotations
from aimux.accounts.quota import CEILING, Cooldown, Quota
from aimux.plugin.types import LimitWindow  # noqa: TC001

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aimux.accounts.account import Account

log = logging.getLogger(__name__)

DEBOUNCE = 10.0
"""Limit windows change with every answer; what is lost by a kill is at most this many seconds of them."""


class Entry(BaseModel):
    """One account's state as it lies in the file. Unknown keys are a newer version's; they are let be."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    disabled: bool = False
    parked: Parked | None = None
    last_used: float | None = None
    cooldowns: dict[str, Cooldown] = {}
    limits: list[LimitWindow] = []


def snapshot(account: Account, now: float) -> dict[str, Any]:
    """What `restore` takes; what is over is left out."""
    entry = Entry(
        disabled=account.disabled,
        parked=account.parked,
        last_used=account.last_used,
        cooldowns={model: c for model, c in account.quota.cooldowns.items() if c.until > now},
        limits=[w for w in account.quota.windows.values() if w.resets_at is None or w.resets_at > now],
    )
    return entry.model_dump(exclude_defaults=True)


def restore(account: Account, saved: object, now: float) -> None:
    """Put an account back into the state it had. What can't be read counts as nothing."""
    try:
        entry = Entry.model_validate(saved)
    except ValidationError:
        log.warning("%s account %s: its saved state is unreadable and begins anew", account.provider, account.name)
        return
    account.disabled = entry.disabled
    account.last_used = entry.last_used
    # A credential that was replaced meanwhile deserves a fresh start; one that can't be read says so already.
    if entry.parked is not None and account.parked is None and entry.parked.fingerprint == account.fingerprint:
        account.parked = entry.parked
    quota = Quota()
    quota.windows = {w.name: w for w in entry.limits if w.resets_at is None or w.resets_at > now}
    quota.cooldowns = {model: c for model, c in entry.cooldowns.items() if c.since <= now < c.until <= now + CEILING}
    account.quota.absorb(quota, now)


def adopt(account: Account, saved: object, now: float) -> None:
    """Put a living account into the state that another node told. What can't be read is let be."""
    try:
        entry = Entry.model_validate(saved)
    except ValidationError:
        return
    if entry.disabled != account.disabled:
        log.info("%s account %s is %s", account.provider, account.name, "disabled" if entry.disabled else "enabled")
    account.disabled, account.last_used = entry.disabled, entry.last_used
    if entry.parked is None:
        # One that can't be read here is nobody else's affair.
        if account.parked is not None and account.parked.fingerprint is not None:
            account.parked = None
    elif entry.parked.fingerprint == account.fingerprint:
        account.parked = entry.parked
    account.quota.replace(
        {w.name: w for w in entry.limits if w.resets_at is None or w.resets_at > now},
        {model: c for model, c in entry.cooldowns.items() if now < c.until <= now + CEILING},
        now,
    )
    account.on_change()


class Accounts(Protocol):
    """The accounts of one provider instance, as those see them who keep their state."""

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """The state of each; `{}` where there is nothing to keep."""
        ...

    def adopt(self, name: str, entry: object) -> None:
        """Take over what another node told of one; of none where it is not there."""
        ...


class LiveState(Protocol):
    """Where the state of accounts lies. Shared by all pools."""

    def entry(self, instance: str, account: str) -> object:
        """What was saved for an account; `{}` where nothing was."""
        ...

    def changed(self, instance: str, accounts: Accounts) -> None:
        """Something is new. Cheap: called with most answers."""
        ...

    async def flush(self, *, now: bool = False) -> None:
        """Write what changed, at most every ten seconds unless `now`. A failure is logged and tried again later."""
        ...


class StateFile:
    """`{state_dir}/accounts.json`, shared by all pools. A broken one is replaced, for it holds nothing that can't be
    learned again."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._written_at = -DEBOUNCE
        self._changed: dict[str, Accounts] = {}
        self._writing = asyncio.Lock()
        self._data = self._read()

    def entry(self, instance: str, account: str) -> object:
        accounts = self._data.get(instance)
        return accounts.get(account, {}) if isinstance(accounts, dict) else {}

    def changed(self, instance: str, accounts: Accounts) -> None:
        self._changed[instance] = accounts

    async def flush(self, *, now: bool = False) -> None:
        async with self._writing:  # an older state must not overtake a newer one on its way to the disk
            await self._flush(now=now)

    async def _flush(self, *, now: bool) -> None:
        if not self._changed or (not now and self._clock() - self._written_at < DEBOUNCE):
            return
        self._written_at = self._clock()
        taken, self._changed = self._changed, {}
        new = {
            instance: {name: entry for name, entry in accounts.snapshot().items() if entry}
            for instance, accounts in taken.items()
        }
        if all(accounts == self._data.get(instance, {}) for instance, accounts in new.items()):
            return  # so that a command which only looks doesn't write over a running server's file
        data = self._data | new
        raw = json.dumps({"version": 1, "accounts": data}, indent=1).encode()
        try:
            await files.in_thread(self._write, raw)
            self._data = data
        except OSError as error:
            self._changed = taken | self._changed
            log.warning("can't write %s (%s); cooldowns would not outlive a restart", self._path, error.strerror)

    def _write(self, raw: bytes) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.replace(self._path, raw)

    def _read(self) -> dict[str, Any]:
        try:
            data = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            log.warning("can't read %s (%s); cooldowns begin anew", self._path, type(error).__name__)
            return {}
        accounts = data.get("accounts") if isinstance(data, dict) else None
        return accounts if isinstance(accounts, dict) else {}
