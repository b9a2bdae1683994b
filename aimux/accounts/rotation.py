"""Gets a rotated credential into the vault, whatever happens there meanwhile.

A provider has just replaced a refresh token: the old one is dead, and the new one exists only in this process until it
is written. So nothing here makes it give up: neither a full disk nor another program that wrote the file in between.
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
"""Bytes by which a renewed credential may be longer than before, and that its rotation file may have."""


class Pending(NamedTuple):
    """`fresh` has to replace `base`."""

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
        """The last refresh token that was read and is not known to be dead, and …"""
        self._newest: bytes | None = None
        """… the file that had it."""
        self._rotations = Rotations()
        self._unsaved: Rotations | None = None

    async def move(self, new: str) -> None:
        """Rename to another account name, with what is still to be saved. Raises VaultError."""
        instance, account = self._where
        await self._resources.vault.rename(instance, account, new, self._file)
        self._where = (instance, new)

    def lock(self) -> AbstractAsyncContextManager[None]:
        """Raises VaultError if the lock can't be had; then nothing could be saved there either."""
        return self._resources.vault.lock(*self._where, self._file)

    async def reserve(self, raw: bytes) -> None:
        """Reserve room for what will replace `raw`. Raises VaultError: then no server should be asked for it."""
        for name in (self._file, self._file + ROTATED):
            await self._resources.vault.reserve(*self._where, name, len(raw) + MARGIN)
        self._rotations = await self._known()  # now, as nothing may delay the answer

    async def read(self) -> bytes:
        """The credential file, or its replacement that was not written yet. Raises VaultError.

        A token that was rotated away is dead: if another program writes it back, the living one replaces it.
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
        if token is not None:
            self._newest = raw
        return raw

    async def save(self, raw: bytes, fresh: bytes) -> None:
        """Put `fresh`, made from `raw`, in its place. Raises VaultError: then it is pending, and `retry` may work."""
        base = self.pending.base if self.pending is not None and self.pending.fresh == raw else raw
        self.pending = Pending(base, fresh)
        old, self._token = self._refresh_token(raw), self._refresh_token(fresh)
        self._newest = fresh
        if old is not None and old != self._token:
            # Before the credential: if nothing else gets written, the credential can be restored from this.
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
                    self.pending = None  # the account was removed on purpose: don't put it back
                    raise
                # What is there may be ours: it was written, though the disk failed after that.
                self.pending = await self._merge(pending, theirs) if theirs != pending.fresh else None

    async def _merge(self, pending: Pending, theirs: bytes) -> Pending | None:
        """Another program wrote the file meanwhile.

        If that holds a dead token, the rest of it is kept and the living token put into it. Otherwise a person has
        logged in anew, or the file is broken: theirs stays, since it is newer and may be another account altogether,
        and ours is kept beside it, since its token may be the living one. If theirs is refused, `rescue` takes ours
        from there.
        """
        if (mended := await self._mended(theirs)) is not None:
            return Pending(theirs, mended)
        await self._replace(self._file + SPARE, pending.fresh)
        log.warning("%s account %s was changed by another program during its renewal; that is used", *self._where)
        return None

    async def keep(self) -> bool:
        """Keep the last login that was read beside the file, which holds none any more. False: that is not possible."""
        if self._newest is None:
            return False
        try:
            await self._replace(self._file + SPARE, self._newest)
        except VaultError:
            return False
        return True

    async def spare(self) -> bytes | None:
        """The login that is kept beside the file, if one is and can be read."""
        try:
            spare = await self._resources.vault.read(*self._where, self._file + SPARE)
        except VaultError:
            return None
        return spare if self._holds_login(spare) else None

    async def put_back(self) -> bool:
        """Exchange a file that holds no login for the one that is kept beside it. False: it holds one, or there is
        none. Raises VaultError."""
        try:
            raw, spare = await self._resources.vault.read(*self._where, self._file), await self.spare()
        except VaultError:
            return False
        if spare is None or self._holds_login(raw):
            return False
        await self._resources.vault.write(*self._where, self._file, spare, expect=raw)
        await self._resources.vault.write(*self._where, self._file + SPARE, raw, expect=spare)
        return True

    # --- what was rotated away ---------------------------------------------------------------------------------------

    async def _mended(self, raw: bytes) -> bytes | None:
        """The file with living tokens in place of dead ones; None: it has no dead ones, or no living ones are known."""
        rotations = await self._known()
        if not rotations.covers(self._refresh_token(raw)):
            return None
        newest = self._newest if self._newest is not None and self._same_login(raw, self._newest) else None
        mended = rotations.mended(raw, newest)
        return None if mended is None or rotations.covers(self._refresh_token(mended)) else mended

    async def _known(self) -> Rotations:
        """The rotations, including those of other processes."""
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
        """Exchange the credential that no longer works for the one that `_merge` kept.

        False: there is none, or it is somebody else's: whoever put another person's login there did not mean that one
        to serve again.
        """
        try:
            spare = await self._resources.vault.read(*self._where, self._file + SPARE)
            if self._other_person(spare, refused):
                return False
            await self._resources.vault.write(*self._where, self._file, spare, expect=refused)
            await self._resources.vault.write(*self._where, self._file + SPARE, refused, expect=spare)
        except VaultError:
            return False
        log.warning("%s account %s: its login was refused; the one that was kept beside it is tried", *self._where)
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

    def _holds_login(self, raw: bytes) -> bool:
        try:
            self.parse(raw)
        except CredentialError:
            return False
        return True

    def _refresh_token(self, raw: bytes) -> str | None:
        try:
            return self.parse(raw).refresh_token
        except CredentialError:
            return None

    def _other_person(self, one: bytes, other: bytes) -> bool:
        """Whether the files say of two persons that they are theirs; many do not say."""
        try:
            a, b = self.parse(one), self.parse(other)
        except CredentialError:
            return False
        pairs = ((a.account_id, b.account_id), (a.organization, b.organization), (a.email, b.email))
        return any(x is not None and y is not None and x != y for x, y in pairs)

    def _same_login(self, one: bytes, other: bytes) -> bool:
        try:
            a, b = self.parse(one), self.parse(other)
        except CredentialError:
            return False
        return (a.account_id, a.organization, a.email) == (b.account_id, b.organization, b.email)
