"""Where credentials lie. A vault moves bytes; what they mean is the provider's affair."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

DEFAULT = "default"
SPARE = ".spare"
"""Suffix of the file beside a credential that keeps a second one, which must not be lost, …"""
ROTATED = ".rotated"
"""… and of the file that keeps its rotations."""
BESIDE = (SPARE, ROTATED)
"""They go where the credential goes."""
ACCOUNT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")


class VaultError(Exception):
    """The vault can't read or write a credential. The old content is untouched. Holds no secret."""

    def __init__(self, reason: str, *, remedy: str = "") -> None:
        super().__init__(f"{reason}: {remedy}" if remedy else reason)
        self.reason = reason
        self.remedy = remedy


class Missing(VaultError):
    """There is no such credential."""


class Unreadable(VaultError):
    """The credential can't be decrypted. Only a person's new login may take its place."""


class Unsafe(VaultError):
    """Others can read the credential, and the file isn't in a folder of ours."""


class Conflict(VaultError):
    """The credential isn't what the writer expected: another program wrote it meanwhile. Nothing was changed."""


class Away(VaultError):
    """The vault can't be reached for now, such as a database that is away: what is known in memory goes on."""


def check_new(account: str, file_name: str) -> None:
    """Raises Conflict if no new account may have this name: its folder would lie where a file of `default` goes."""
    if account == file_name or account.startswith(f"{file_name}."):
        raise Conflict(f"{account!r} can't be an account's name: a file is named so", remedy="choose another name")


class Vault(Protocol):
    """`(instance, account, file name) -> bytes`. Async, so that a database can be one. All raise VaultError."""

    async def scan(self, instance: str, file_name: str) -> dict[str, str]:
        """Account names, each with a tag that changes whenever its credential may have changed."""
        ...

    async def list(self, instance: str, file_name: str) -> list[str]:
        """Account names, sorted."""
        ...

    async def read(self, instance: str, account: str, file_name: str) -> bytes:
        """Raises Missing, Unsafe, Unreadable."""
        ...

    async def write(
        self, instance: str, account: str, file_name: str, raw: bytes, *, expect: bytes | None, detach: bool = False
    ) -> None:
        """Compare and swap: `expect` is what the writer last read, None that nothing was there. Raises Conflict.

        `detach`: a person's new login. One that is shared with another program stays as it is there, and the account
        gets its own; a spare, which is of the login before, is deleted. With None it replaces one that is Unreadable.
        """
        ...

    async def delete(self, instance: str, account: str, file_name: str) -> None:
        """Raises Missing."""
        ...

    async def rename(self, instance: str, account: str, new: str, file_name: str) -> None:
        """Raises Missing, or Conflict if `new` is taken."""
        ...

    async def links(self, instance: str, file_name: str) -> dict[str, str]:
        """Accounts whose credential is shared with another program, and where it lies."""
        ...

    async def reserve(self, instance: str, account: str, file_name: str, size: int) -> None:
        """Make sure that a `write` of this many bytes will find room. Holds while the lock is held.

        Raises VaultError if there is no room.
        """
        ...

    def lock(self, instance: str, account: str, file_name: str) -> AbstractAsyncContextManager[None]:
        """Exclusive over tasks and processes; `write`, `delete` and `rename` take it unless the task has it."""
        ...
