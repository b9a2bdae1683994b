"""Brings a rotated credential to the vault, whatever happens there meanwhile.

A provider has just replaced a refresh token: the old one is dead, and the new one exists only in this process until it
is written. So nothing here gives it up: not a full disk, not another program that wrote the file in between.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aimux.accounts.vault import SPARE, Conflict, Missing, VaultError
from aimux.plugin.errors import CredentialError
from aimux.plugin.http import HttpUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager

    from aimux.accounts.renewal_tools import Workshop
    from aimux.plugin.http import Http, HttpAnswer
    from aimux.plugin.types import Credential

log = logging.getLogger(__name__)


class Recorder:
    """Passes requests on and keeps the answers."""

    def __init__(self, http: Http) -> None:
        self._http = http
        self.answers: list[HttpAnswer] = []

    async def request(
        self,
        method: str,
        url: str,
        *,
        json: object = None,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,  # noqa: ASYNC109 - the protocol's, see aimux.plugin.http
    ) -> HttpAnswer:
        answer = await self._http.request(method, url, json=json, form=form, headers=headers, timeout=timeout)
        self.answers.append(answer)
        return answer


class Replay:
    """Gives recorded answers again, in their order; sends nothing."""

    def __init__(self, answers: list[HttpAnswer]) -> None:
        self._answers = iter(answers)

    async def request(self, method: str, url: str, **_: object) -> HttpAnswer:
        for answer in self._answers:
            return answer
        raise HttpUnavailable("nothing more was recorded")


@dataclass(frozen=True, slots=True, repr=False)
class Pending:
    """`fresh` belongs in the place of `base`; `answers` are what the provider made it from."""

    base: bytes
    fresh: bytes
    answers: list[HttpAnswer]


class Place:
    """One account's place in the vault. `save` and `rescue` only under its lock."""

    def __init__(self, shop: Workshop, account: str) -> None:
        self._shop = shop
        self._where = (shop.provider.instance, account)
        self._file = shop.provider.credential_file
        self.pending: Pending | None = None

    async def move(self, new: str) -> None:
        """To another account name, with what is still to be saved. Raises VaultError."""
        instance, account = self._where
        await self._shop.vault.rename(instance, account, new, self._file)
        self._where = (instance, new)

    def lock(self) -> AbstractAsyncContextManager[None]:
        """Raises VaultError where it can't be had; nothing could be saved there either."""
        return self._shop.vault.lock(*self._where, self._file)

    async def read(self) -> bytes:
        """The credential file, or what belongs in its place and could not be written yet. Raises VaultError."""
        raw = await self._shop.vault.read(*self._where, self._file)
        return self.pending.fresh if self.pending is not None and self.pending.base == raw else raw

    async def save(self, raw: bytes, fresh: bytes, answers: list[HttpAnswer]) -> None:
        """Put `fresh`, made from `raw`, in its place. Raises VaultError: then it is pending, and `retry` may work."""
        base = self.pending.base if self.pending is not None and self.pending.fresh == raw else raw
        self.pending = Pending(base, fresh, answers)
        await self.retry()

    async def retry(self) -> None:
        """Write what is pending. Raises VaultError."""
        while (pending := self.pending) is not None:
            try:
                await self._shop.vault.write(*self._where, self._file, pending.fresh, expect=pending.base)
                self.pending = None
            except Conflict:
                try:
                    theirs = await self._shop.vault.read(*self._where, self._file)
                except Missing:
                    self.pending = None  # the account was removed: putting it back would be against somebody's will
                    raise
                self.pending = await self._merge(pending, theirs)

    async def _merge(self, pending: Pending, theirs: bytes) -> Pending | None:
        """Another program wrote the file while the provider was answering.

        If it left the refresh token alone, its edit is kept and the same answer is put into it, field by field, which
        only the provider can do. Otherwise a person has logged in anew, or the file is broken: theirs stays, since it
        is newer and may be another account altogether, and ours is kept beside it, since its token may be the one that
        lives. `rescue` takes it from there should theirs be refused.
        """
        if self._refresh_token(theirs) == self._refresh_token(pending.base):
            try:
                merged = await self._shop.provider.refresh(theirs, Replay(pending.answers))
                return Pending(theirs, merged, pending.answers)
            except Exception as error:  # a plugin's code: then its answer is kept whole
                log.error("%s account %s: merging failed (%s)", *self._where, type(error).__name__)
        try:
            before = await self._shop.vault.read(*self._where, self._file + SPARE)
        except Missing:
            before = None
        await self._shop.vault.write(*self._where, self._file + SPARE, pending.fresh, expect=before)
        log.warning("%s account %s was changed by another program during its renewal; that is used", *self._where)
        return None

    async def rescue(self, refused: bytes) -> bool:
        """Put the credential that `_merge` kept into the place of one that no longer works. False: there is none."""
        try:
            spare = await self._shop.vault.read(*self._where, self._file + SPARE)
            await self._shop.vault.write(*self._where, self._file, spare, expect=refused)
            await self._shop.vault.delete(*self._where, self._file + SPARE)
        except VaultError:
            return False
        log.warning("%s account %s: took the credential that was kept when another program changed it", *self._where)
        return True

    def parse(self, raw: bytes) -> Credential:
        """Raises CredentialError."""
        return self._shop.provider.parse_credential(raw)

    def _refresh_token(self, raw: bytes) -> str | None:
        try:
            return self.parse(raw).refresh_token
        except CredentialError:
            return None
