"""Where the accounts' credentials and their live state lie: files with SQLite, rows with PostgreSQL."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from aimux.accounts.file_vault import FileVault
from aimux.accounts.state import StateFile
from aimux.storage import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aimux.accounts.database_state import DatabaseState
    from aimux.accounts.database_vault import DatabaseVault
    from aimux.accounts.state import LiveState
    from aimux.accounts.vault import Vault
    from aimux.config import Config

log = logging.getLogger(__name__)


class Stores(NamedTuple):
    """What an AccountPool works with."""

    vault: Vault
    state: LiveState


async def stores_in(config: Config, database: Database) -> Stores:
    """The stores that the configuration asks for; `database` is open. Raises StorageError, VaultError.

    What an old key encrypts there is encrypted anew.
    """
    if config.database.url is None:
        return _files(config)
    vault, state = await _rows(config, database)
    if number := await vault.seal_anew():
        log.info("%d credentials were encrypted anew, with database.encryption_key", number)
    return Stores(vault, state)


@asynccontextmanager
async def stores(config: Config) -> AsyncIterator[Stores]:
    """The same for a command that has no database open and only reads. Raises StorageError."""
    if config.database.url is None:
        yield _files(config)
        return
    database = await Database.open(config.database.address, config.state_dir)
    try:
        yield Stores(*await _rows(config, database))
    finally:
        await database.close()


def file_vault(config: Config) -> FileVault:
    """For what can be done with files alone, such as sharing a login with another program."""
    return FileVault(config.state_dir)


def _files(config: Config) -> Stores:
    return Stores(file_vault(config), StateFile(config.state_dir / "accounts.json"))


async def _rows(config: Config, database: Database) -> tuple[DatabaseVault, DatabaseState]:
    from aimux.accounts.database_state import DatabaseState
    from aimux.accounts.database_vault import DatabaseVault

    return DatabaseVault(database, config.database.keys), await DatabaseState.open(database)
