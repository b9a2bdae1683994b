"""From whichever schema a database has to the one of this program. Nothing is ever taken back to an older one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from aimux import __version__
from aimux.storage.errors import StorageError

if TYPE_CHECKING:
    from sqlalchemy import Connection

HEAD = "0001"
"""The schema's version that this program reads and writes: the last revision in versions/. They count up."""


def behind(version: str | None, where: str) -> bool:
    """Whether a database of this version has to be migrated. Raises StorageError where it is newer than the program."""
    if version is not None and version > HEAD:
        raise StorageError(
            f"{where} was written by a newer aimux (its schema is {version}; aimux {__version__} knows {HEAD} at most)",
            remedy="install the aimux that it was last used with, or restore the copy made before it was migrated",
        )
    return version != HEAD


def upgrade(connection: Connection) -> None:
    """Bring the schema to HEAD within the connection's open transaction. Imports Alembic (0.1 s)."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)
