"""What all tables share, and the tables that storage itself needs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sqlalchemy import JSON, BigInteger, Column, MetaData, Table, Text, event

if TYPE_CHECKING:
    from sqlalchemy import Connection, Dialect
    from sqlalchemy.dialects import postgresql, sqlite
    from sqlalchemy.engine.mock import MockConnection

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


@event.listens_for(METADATA, "before_create")
def _partial(metadata: MetaData, connection: Connection | MockConnection, **_options: object) -> None:
    """Has PostgreSQL make the partial indexes that are declared for SQLite. Declared for both, they would have
    SQLAlchemy import PostgreSQL's dialect everywhere: 2 MB and 25 ms."""
    if connection.dialect.name == "postgresql":
        for index in (index for table in metadata.tables.values() for index in table.indexes):
            index.dialect_options["postgresql"]["where"] = index.dialect_options["sqlite"]["where"]


Json = JSON(none_as_null=True)
"""A list or a mapping. None is SQL's NULL, and not the JSON value null."""


def moment(name: str, **options: Any) -> Column[int]:
    """A time: whole milliseconds since 1970 in UTC. Not null unless said otherwise."""
    return Column(name, BigInteger, **{"nullable": False, **options})


LOCAL = {"local": True}
"""The `info` of a table that is only about this database or the nodes on it, and means nothing in another one."""

changes = Table(
    "changes",
    METADATA,
    Column("topic", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    comment="How often each topic was written to. A topic without a row was never touched.",
    info=LOCAL,
)

migrations = Table(
    "migrations",
    METADATA,
    Column("version", Text, primary_key=True),
    Column("aimux", Text, nullable=False),
    comment="Which aimux brought the schema to which version: an older one says by it what to install.",
    info=LOCAL,
)

meta = Table(
    "meta",
    METADATA,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    comment="Single facts about the installation, by name.",
)


def insert(dialect: Dialect, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that supports ON CONFLICT, of the dialect in use: importing the other one would take 2 MB."""
    made: sqlite.Insert | postgresql.Insert = import_module(f"sqlalchemy.dialects.{dialect.name}").insert(table)
    return made
