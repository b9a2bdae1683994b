"""The nodes that share a database, and what one of them holds for all."""

from __future__ import annotations

from sqlalchemy import Column, Table, Text

from aimux.storage.schema.base import LOCAL, METADATA
from aimux.storage.schema.columns import moment

nodes = Table(
    "nodes",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    moment("started_at"),
    moment("seen_at"),
    comment="Every running aimux; one that was not seen for a minute is gone.",
    info=LOCAL,
)

leases = Table(
    "leases",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("node", Text, nullable=False),
    moment("until"),
    comment="What one node at a time does or holds for all, by name, until then.",
    info=LOCAL,
)
