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
SCRIPTS = Path(__file__).parent


def behind(version: str | None, where: str) -> bool:
    """Whether a database of this version has to be migrated. Raises StorageError where it is newer than the program."""
    if version is not None and version > HEAD:
        raise StorageError(
            f"{where} was written by a newer aimux (its schema is {version}; aimux {__version__} knows {HEAD} at most)",
            remedy="install the aimux that it was last used with, or restore the copy made before it was migrated",
        )
    return version != HEAD


def version_of(connection: Connection) -> str | None:
    """The version of the schema that is there; None where there is none."""
    from sqlalchemy import inspect

    if not inspect(connection).has_table("alembic_version"):
        return None
    version: str | None = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one_or_none()
    return version


def upgrade(connection: Connection, where: str) -> None:
    """Bring the schema to HEAD within the connection's open transaction. Imports Alembic. Raises StorageError."""
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, HEAD)
    except CommandError as error:
        raise StorageError(f"{where} can't be migrated to schema {HEAD} ({error}); it is left as it was") from None
