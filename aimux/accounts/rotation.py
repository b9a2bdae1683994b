"""Brings a rotated credential to the vault, whatever happens there meanwhile.

A provider has just replaced a refresh token: the old one is dead, and the new one exists only in this process until it
is written. So nothing here gives it up: not a full disk, not another program that wrote the file in between.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from aimux.accounts.credentials import parse_credential
from aimux.accounts.rotations import Rotations
from aimux.accounts.vault import ROTATED, SPARE, Conflict, Missing, VaultError
from aimux.plugin.errors import CredentialError

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from aimux.accounts.resources import Resources
    from aimux.plugin.types import Credential

log = logging.getLogger(__name__)


MARGIN = 16 * 1024
"""Bytes that a renewed credential may be longer than before, and that what is remembered of it may have."""


class Pending(NamedTuple):
    """`fresh` belongs in the place of `base`."""

    base: bytes
    fresh: bytes

    def __repr__(self) -> str:
        return "Pending()"


class Place:
    """One account's place in the vault. `save` and `rescue` only under its lock."""

    def __init__(self, resources: Resources, account: str) -> None:
        self._resources = resources
        self._where = (resources.provider.instance, account)
        self._file = resources.provider.credential_file
        self.pending: Pending | None = None
        self._token: str | None = None
        """The refresh token that was read last and is not known to be dead, and …"""
        self._newest: bytes | None = None
        """… the file that had it."""
        self._rotations = Rotations()
        self._unsaved: Rotations | None = None

    async def move(self, new: str) -> None:
        """To another account name, with what is still to be saved. Raises VaultError."""
        instance, account = self._where
        await self._resources.vault.rename(instance, account, new, self._file)
        self._where = (instance, new)

    def lock(self) -> AbstractAsyncContextManager[None]:
        """Raises VaultError where it can't be had; nothing could be saved there either."""
        return self._resources.vault.lock(*self._where, self._file)

    async def reserve(self, raw: bytes) -> None:
        """Room for what will take the place of `raw`. Raises VaultError: nobody should be asked for it then."""
        for name in (self._file, self._file + ROTATED):
            await self._resources.vault.reserve(*self._where, name, len(raw) + MARGIN)
        self._rotations = await self._known()  # now: nothing may delay what comes back

    async def read(self) -> bytes:
        """The credential file, or what belongs in its place and was not written yet. Raises VaultError.

        A token that was rotated away is dead: where another program writes it back, the living one belongs there.
        """
        raw = await self._resources.vault.read(*self._where, self._file)
        if self.pending is not None and self.pending.base == raw:
            return self.pending.fresh
        token = self._refresh_token(raw)
        if token is not None and token != self._token:
            if (mended := await self._mended(raw)) is not None:
                log.warning(
                    "%s account %s: another program wrote an old login back; the renewed one is put into it",
                    *self._where,
                )
                self.pending = Pending(raw, mended)
                return mended
            self._token = token
        self._newest = raw
        return raw

    async def save(self, raw: bytes, fresh: bytes) -> None:
        """Put `fresh`, made from `raw`, in its place. Raises VaultError: then it is pending, and `retry` may work."""
        base = self.pending.base if self.pending is not None and self.pending.fresh == raw else raw
        self.pending = Pending(base, fresh)
        old, self._token = self._refresh_token(raw), self._refresh_token(fresh)
        self._newest = fresh
        if old is not None and old != self._token:
            # Before the credential: with what is written here it can be made whole, should that be all that is written.
            await self._remember(self._rotations.after(old, raw, fresh))
        await self.retry()

    async def retry(self) -> None:
        """Write what is pending. Raises VaultError."""
        while (pending := self.pending) is not None:
            try:
                await self._resources.vault.write(*self._where, self._file, pending.fresh, expect=pending.base)
                self.pending = None
            except Conflict:
                try:
                    theirs = await self._resources.vault.read(*self._where, self._file)
                except Missing:
                    self.pending = None  # the account was removed: putting it back would be against somebody's will
                    raise
                self.pending = await self._merge(pending, theirs)

    async def _merge(self, pending: Pending, theirs: bytes) -> Pending | None:
        """Another program wrote the file meanwhile.

        If what it wrote holds a token that is dead, the rest of it is kept and the living one put into it. Otherwise a
        person has logged in anew, or the file is broken: theirs stays, since it is newer and may be another account
        altogether, and ours is kept beside it, since its token may be the one that lives. `rescue` takes it from there
        should theirs be refused.
        """
        if (mended := await self._mended(theirs)) is not None:
            return Pending(theirs, mended)
        await self._replace(self._file + SPARE, pending.fresh)
        log.warning("%s account %s was changed by another program during its renewal; that is used", *self._where)
        return None

    # --- what was rotated away ---------------------------------------------------------------------------------------

    async def _mended(self, raw: bytes) -> bytes | None:
        """The file with living tokens in the place of dead ones; None: it has none of those, or none are known."""
        rotations = await self._known()
        if not rotations.covers(self._refresh_token(raw)):
            return None
        newest = self._newest if self._newest is not None and self._same_login(raw, self._newest) else None
        mended = rotations.mended(raw, newest)
        return None if mended is None or rotations.covers(self._refresh_token(mended)) else mended

    async def _known(self) -> Rotations:
        """With what other processes have rotated."""
        try:
            raw = await self._resources.vault.read(*self._where, self._file + ROTATED)
        except VaultError:
            return self._unsaved or Rotations()
        return self._unsaved or Rotations.read(raw)

    async def _remember(self, rotations: Rotations) -> None:
        try:
            await self._replace(self._file + ROTATED, rotations.written())
            self._unsaved = None
        except VaultError as error:  # the credential itself matters more, and may fit
            self._unsaved = rotations
            log.warning("%s account %s: what was rotated can't be remembered on disk: %s", *self._where, error)

    async def rescue(self, refused: bytes) -> bool:
        """Put the credential that `_merge` kept into the place of one that no longer works. False: there is none."""
        try:
            spare = await self._resources.vault.read(*self._where, self._file + SPARE)
            await self._resources.vault.write(*self._where, self._file, spare, expect=refused)
            await self._resources.vault.delete(*self._where, self._file + SPARE)
        except VaultError:
            return False
        log.warning("%s account %s: took the credential that was kept when another program changed it", *self._where)
        return True

    async def _replace(self, name: str, raw: bytes) -> None:
        try:
            before = await self._resources.vault.read(*self._where, name)
        except Missing:
            before = None
        await self._resources.vault.write(*self._where, name, raw, expect=before)

    def parse(self, raw: bytes) -> Credential:
        """Raises CredentialError."""
        return parse_credential(self._resources.provider, raw)

    def _refresh_token(self, raw: bytes) -> str | None:
        try:
            return self.parse(raw).refresh_token
        except CredentialError:
            return None

    def _same_login(self, one: bytes, other: bytes) -> bool:
        try:
            a, b = self.parse(one), self.parse(other)
        except CredentialError:
            return False
        return (a.account_id, a.organization, a.email) == (b.account_id, b.organization, b.email)
