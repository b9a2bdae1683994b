"""Where credentials lie. A vault moves bytes; what they mean is the provider's affair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

DEFAULT = "default"


class VaultError(Exception):
    """The vault can't read or write a credential. Holds no secret."""

    def __init__(self, reason: str, *, remedy: str = "") -> None:
        super().__init__(f"{reason}: {remedy}" if remedy else reason)
        self.reason = reason
        self.remedy = remedy


class Missing(VaultError):
    """There is no such credential."""


class Conflict(VaultError):
    """The credential isn't what the writer expected: somebody else wrote meanwhile. Nothing was changed."""


class Vault(Protocol):
    """`(instance, account, file name) -> bytes`. Async, so that a database can be one."""

    async def scan(self, instance: str, file_name: str) -> dict[str, str]:
        """Account names, each with a tag that changes whenever its credential may have changed."""
        ...

    async def list(self, instance: str, file_name: str) -> list[str]: ...

    async def read(self, instance: str, account: str, file_name: str) -> bytes:
        """Raises Missing, VaultError."""
        ...

    async def write(self, instance: str, account: str, file_name: str, raw: bytes, *, expect: bytes | None) -> None:
        """Compare and swap: `expect` is what the writer last read, None that nothing was there. Raises Conflict."""
        ...

    async def delete(self, instance: str, account: str, file_name: str) -> None: ...

    async def rename(self, instance: str, account: str, new: str, file_name: str) -> None: ...

    def lock(
        self, instance: str, account: str, file_name: str, *, timeout: float = 90.0
    ) -> AbstractAsyncContextManager[None]:
        """Exclusive over tasks and processes; `write`, `delete` and `rename` take it unless the task has it."""
        ...


class FileVault(Vault):
    def __init__(self, state_dir: Path) -> None:
        raise NotImplementedError
