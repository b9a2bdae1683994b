"""Every credential and what is known of the accounts, taken out of one place and put into another."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from aimux.accounts.vault import BESIDE, Conflict, Missing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from aimux.accounts.vault import Vault


class CredentialFile(NamedTuple):
    """One file of an account; `raw` is a secret."""

    instance: str
    account: str
    file_name: str
    raw: bytes

    def __repr__(self) -> str:
        return f"CredentialFile({self.instance}/{self.account}/{self.file_name})"


async def credentials(vault: Vault, file_names: Mapping[str, str]) -> AsyncIterator[CredentialFile]:
    """All credentials of these instances, with the files beside them. `file_names`: by instance. Raises VaultError."""
    for instance, file_name in file_names.items():
        for account in await vault.list(instance, file_name):
            for name in (file_name, *(file_name + suffix for suffix in BESIDE)):
                try:
                    raw = await vault.read(instance, account, name)
                except Missing:
                    if name == file_name:
                        raise
                    continue
                yield CredentialFile(instance, account, name, raw)


async def put_credentials(vault: Vault, files: Iterable[CredentialFile]) -> int:
    """Write them where none are; identical ones are left. Returns how many were written.

    Raises Conflict, before anything is written, if an account has another credential there; VaultError.
    """
    new = []
    for file in files:
        try:
            there = await vault.read(*file[:3])
        except Missing:
            new.append(file)
        else:
            if there != file.raw:
                raise Conflict(
                    f"{file.instance}/{file.account} has another credential there",
                    remedy="remove that account first: nothing is written over",
                )
    for file in new:
        await vault.write(*file[:3], file.raw, expect=None)
    return len(new)
