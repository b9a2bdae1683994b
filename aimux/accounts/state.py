"""What has to outlive a restart and is no secret: cooldowns, limit windows, what is parked, disabled or assigned."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from aimux.accounts import files
from aimux.accounts.parked import Cooldown, Parked  # noqa: TC001 - pydantic reads the annotations
from aimux.accounts.quota import CEILING, FULL, Quota
from aimux.plugin.settings import AccountSettings
from aimux.plugin.types import LimitWindow  # noqa: TC001
from aimux.storage import StorageError
from aimux.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from aimux.accounts.account import Account

log = logging.getLogger(__name__)

DEBOUNCE = 10.0
"""Limit windows change with every answer; a kill loses at most this many seconds of them."""


VERSION = 1
UNREADABLE = "unreadable"


class Entry(BaseModel):
    """One account's state as it is in the file. Unknown keys are a newer version's: `StateFile` preserves them."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    disabled: bool = False
    settings: AccountSettings = AccountSettings()
    parked: Parked | None = None
    last_used: float | None = None
    cooldowns: dict[str, Cooldown] = {}
    limits: list[LimitWindow] = []
    full_since: dict[str, float] = {}


CLOSED = ("disabled", "parked", "settings")
"""What a person decided, or has to: while it can't be read, the account does not serve."""


def snapshot(account: Account, now: float) -> dict[str, Any]:
    """What `restore` takes; what is over is left out."""
    limits = [w for w in account.quota.windows.values() if w.resets_at is None or w.resets_at > now]
    since = account.quota.full_since
    entry = Entry(
        disabled=account.disabled,
        settings=account.assigned,
        parked=account.parked,
        last_used=account.last_used,
        cooldowns={model: c for model, c in account.quota.cooldowns.items() if c.until > now},
        limits=limits,
        full_since={w.name: since[w.name] for w in limits if w.name in since and (w.used or 0.0) >= FULL},
    )
    return entry.model_dump(mode="json", exclude_defaults=True)  # so that it compares equal to what was read


def restore(account: Account, saved: object, now: float) -> None:
    """Put an account back into its saved state. If that does not show whether it was out of service, it is parked."""
    if not isinstance(saved, dict):
        _park(account, "its saved state can't be read")
        return
    entry, wrong = _read(saved)
    if wrong:
        log.warning("%s account %s: can't read %s of its saved state", account.provider, account.name, sorted(wrong))
    account.disabled = entry.disabled
    account.assigned = entry.settings
    account.last_used = entry.last_used
    # A credential that was replaced meanwhile gets a fresh start; an unreadable one has its own reason already.
    if entry.parked is not None and account.parked is None and entry.parked.fingerprint == account.fingerprint:
        account.parked = entry.parked
    quota = Quota()
    quota.windows = {w.name: w for w in entry.limits if w.resets_at is None or w.resets_at > now}
    quota.cooldowns = {model: c for model, c in entry.cooldowns.items() if c.since <= now < c.until <= now + CEILING}
    quota.full_since = entry.full_since
    account.quota.absorb(quota, now)
    if not wrong.isdisjoint(CLOSED):
        _park(account, f"its saved state can't be read ({', '.join(sorted(wrong))})")


def _read(saved: dict[str, Any]) -> tuple[Entry, set[str]]:
    """What can be read, and the fields that can't."""
    wrong: set[str] = set()
    while True:
        try:
            return Entry.model_validate({key: value for key, value in saved.items() if key not in wrong}), wrong
        except ValidationError as error:
            wrong |= {str(fault["loc"][0]) for fault in error.errors(include_url=False, include_input=False)}


def _park(account: Account, why: str) -> None:
    if account.parked is None:
        reason = f"{why}, and so not whether somebody switched it off, or whom it serves"
        account.park(reason, f"aimux accounts enable {account.provider}/{account.name}")


def adopt(account: Account, saved: object, now: float) -> None:
    """Put a live account into the state that another node wrote. What can't be read is ignored."""
    try:
        entry = Entry.model_validate(saved)
    except ValidationError:
        return
    if entry.disabled != account.disabled:
        log.info("%s account %s is %s", account.provider, account.name, "disabled" if entry.disabled else "enabled")
    account.disabled, account.assigned, account.last_used = entry.disabled, entry.settings, entry.last_used
    if entry.parked is None:
        # A credential that can't be read here does not concern other nodes.
        if account.parked is not None and account.parked.fingerprint is not None:
            account.parked = None
    elif entry.parked.fingerprint == account.fingerprint:
        account.parked = entry.parked
    account.quota.replace(
        {w.name: w for w in entry.limits if w.resets_at is None or w.resets_at > now},
        {model: c for model, c in entry.cooldowns.items() if now < c.until <= now + CEILING},
        now,
        entry.full_since,
    )
    account.on_change()


class Accounts(Protocol):
    """The accounts of one provider instance, as their state's store sees them."""

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """The state of each; `{}` if there is nothing to keep."""
        ...

    def adopt(self, name: str, entry: object) -> None:
        """Take over what another node wrote about an account, if it is there."""
        ...


class LiveState(Protocol):
    """Where the state of accounts lies. Shared by all pools."""

    def entry(self, instance: str, account: str) -> object:
        """What was saved for an account; `{}` if nothing was, None if it can't be read."""
        ...

    def changed(self, instance: str, accounts: Accounts) -> None:
        """Something is new. Cheap: called with most answers."""
        ...

    def entries(self) -> dict[tuple[str, str], Any]:
        """Everything that was saved, by instance and account."""
        ...

    async def put(self, entries: Mapping[tuple[str, str], Any]) -> None:
        """Add these to what is saved: for moving in from elsewhere. Raises StorageError."""
        ...

    async def flush(self, *, now: bool = False) -> None:
        """Write what changed, at most every ten seconds unless `now`. A failure is logged and tried again later."""
        ...

    @property
    def trouble(self) -> str:
        """Why changes are not being written now; "" if they are."""
        ...


class StateFile:
    """`{state_dir}/accounts.json`, shared by all pools.

    A file that can't be read, or that a newer version wrote, is kept beside the one that replaces it.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._written_at = -DEBOUNCE
        self._changed: dict[str, Accounts] = {}
        self._writing = asyncio.Lock()
        self._aside = ""
        """The name under which the current file is kept when it is replaced; "": it needn't be kept."""
        self._unreadable = False
        self.trouble = ""
        self._document = self._read()
        self._data: dict[str, Any] = self._document.get("accounts", {})

    def entry(self, instance: str, account: str) -> object:
        if self._unreadable:
            return None
        accounts = self._data.get(instance, {})
        saved = accounts.get(account, {}) if isinstance(accounts, dict) else None
        if not isinstance(saved, dict) or _read(saved)[1]:
            self._aside = self._aside or UNREADABLE
        return saved

    def entries(self) -> dict[tuple[str, str], Any]:
        return {
            (instance, account): entry
            for instance, accounts in self._data.items()
            if isinstance(accounts, dict)
            for account, entry in accounts.items()
        }

    async def put(self, entries: Mapping[tuple[str, str], Any]) -> None:
        data = {instance: dict(accounts) for instance, accounts in self._data.items() if isinstance(accounts, dict)}
        for (instance, account), entry in entries.items():
            data.setdefault(instance, {})[account] = entry
        if entries:
            try:
                await self._save(data)
            except OSError as error:
                raise StorageError(f"can't write {self._path} ({error.strerror})") from None

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
        new = {instance: self._carried(instance, accounts.snapshot()) for instance, accounts in taken.items()}
        if all(accounts == self._data.get(instance, {}) for instance, accounts in new.items()):
            self.trouble = ""
            return  # so that a command that only reads doesn't overwrite a running server's file
        data = self._data | new
        try:
            await self._save(data)
        except OSError as error:
            self._changed = taken | self._changed
            trouble = f"can't write {self._path} ({error.strerror})"
            if trouble != self.trouble:
                log.warning("%s; cooldowns would not outlive a restart", trouble)
            self.trouble = trouble
        else:
            if self.trouble:
                log.info("%s is written again", self._path)
            self.trouble = ""

    def _carried(self, instance: str, accounts: dict[str, Any]) -> dict[str, Any]:
        """With the keys that only a newer version knows."""
        known = self._data.get(instance)
        known = known if isinstance(known, dict) else {}
        carried = {}
        for name, entry in accounts.items():
            before = known.get(name)
            foreign = before.items() if isinstance(before, dict) else ()
            carried[name] = {key: value for key, value in foreign if key not in Entry.model_fields} | entry
        return {name: entry for name, entry in carried.items() if entry}

    async def _save(self, data: dict[str, Any]) -> None:
        raw = json.dumps({**self._document, "version": VERSION, "accounts": data}, indent=1).encode()
        await in_thread(self._write, raw)
        self._data, self._aside, self._unreadable = data, "", False

    def _write(self, raw: bytes) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._aside:
            aside = self._path.with_name(f"{self._path.name}.{self._aside}")
            files.replace(aside, self._path.read_bytes())
            log.warning("the %s that was there is kept as %s", self._path.name, aside)
        files.replace(self._path, raw)

    def _read(self) -> dict[str, Any]:
        """The document. Whatever is wrong with it is logged, and remembered."""
        why = ""
        try:
            document = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            where = f" in line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
            why = type(error).__name__ + where
        else:
            if not isinstance(document, dict) or not isinstance(document.get("accounts"), dict):
                why = "it holds no accounts"
        if why:
            log.error("can't read %s (%s): accounts are parked until somebody enables them", self._path, why)
            self._unreadable, self._aside = True, UNREADABLE
            return {}
        version = document.get("version", VERSION)
        if version != VERSION:
            log.warning(
                "%s was written by another version (%r); what this one understands of it is used", self._path, version
            )
            self._aside = "other-version"
        return document  # type: ignore[no-any-return]
