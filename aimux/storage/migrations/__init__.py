"""Migrates any older schema to this program's. Nothing is ever migrated back."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aimux import __version__
from aimux.storage.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import ClauseElement, Connection
    from sqlalchemy.engine.mock import MockConnection

HEAD = "0006"
"""The schema's version that this program reads and writes: the last revision in versions/. They count up."""
MIGRATED = "if a newer aimux has migrated it, run that one here too"
"""The remedy where a table or a column is not there."""
SCRIPTS = Path(__file__).parent


class Schema(NamedTuple):
    """What a database has: the schema's version, and which aimux made it, if known."""

    version: str | None = None
    aimux: str | None = None


def behind(found: Schema, where: str) -> bool:
    """Whether a database has to be migrated. Raises StorageError if it is newer than the program."""
    version, by = found
    if version is not None and version > HEAD:
        needed = f"install aimux {by} or a newer one" if by else "install the aimux that it was last used with"
        raise StorageError(
            f"{where} was written by a newer aimux (its schema is {version}; aimux {__version__} knows {HEAD} at most)",
            remedy=f"{needed}, or restore the copy made before it was migrated",
        )
    return version != HEAD


def schema_of(connection: Connection, where: str) -> Schema:
    """What is there. Raises StorageError if it is another program's."""
    from sqlalchemy import inspect, select

    from aimux.storage.schema.base import migrations

    if not ours(inspect(connection).get_table_names(), where):
        return Schema()
    version = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one_or_none()
    by = connection.execute(select(migrations.c.aimux).where(migrations.c.version == version)).scalar_one_or_none()
    return Schema(version, by)


def ours(tables: Iterable[str], where: str) -> bool:
    """Whether these are aimux's; False: there are none of these names. Raises StorageError if they are another
    program's: many keep their version as Alembic does, and have users."""
    from aimux.storage.schema import METADATA

    named = {"alembic_version", *METADATA.tables}.intersection(tables)
    if named >= {"alembic_version", "migrations", "changes"}:  # as the first schema had them
        return True
    if named:
        raise StorageError(
            f"{where} holds another program's tables ({', '.join(sorted(named))})",
            remedy="let database.url lead to a database of aimux's own, or to another schema there (search_path)",
        )
    return False


def create(connection: Connection | MockConnection) -> None:
    """Make the schema of HEAD if there is none, within the connection's open transaction.

    It equals the result of all migrations (a test checks that), made without Alembic, whose import takes 0.1 s, and 9
    MB that a server would keep.
    """
    from sqlalchemy import Column, MetaData, PrimaryKeyConstraint, String, Table

    from aimux.storage.schema import METADATA
    from aimux.storage.schema.base import migrations

    METADATA.create_all(connection, checkfirst=False)
    number = Column("version_num", String(32), nullable=False)
    alembics = Table("alembic_version", MetaData(), number, PrimaryKeyConstraint(number, name="alembic_version_pkc"))
    alembics.create(connection, checkfirst=False)
    connection.execute(alembics.insert().values(version_num=HEAD))
    connection.execute(migrations.insert().values(version=HEAD, aimux=__version__))


@functools.cache
def sqlite_statements() -> tuple[str, ...]:
    """What `create` does, in SQLite's words."""
    from sqlalchemy import create_mock_engine

    statements: list[str] = []

    def write(statement: ClauseElement, *_: object, **_options: object) -> None:
        statements.append(str(statement.compile(dialect=engine.dialect, compile_kwargs={"literal_binds": True})))

    engine = create_mock_engine("sqlite://", write)
    create(engine)
    return tuple(statements)


def upgrade(connection: Connection, where: str) -> None:
    """Bring an older schema to HEAD within the connection's open transaction. Imports Alembic. Raises StorageError."""
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    from aimux.storage.schema.base import migrations

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, HEAD)
        connection.execute(migrations.insert().values(version=HEAD, aimux=__version__))
    except CommandError as error:
        raise StorageError(f"{where} can't be migrated to schema {HEAD} ({error}); it is left as it was") from None
