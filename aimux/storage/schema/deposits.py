"""What users keep with the vendors: whose it is and where it is. Writes here have the topic `deposits`."""

from __future__ import annotations

from sqlalchemy import Column, Table, Text

from aimux.storage.schema.base import METADATA, moment

deposits = Table(
    "deposits",
    METADATA,
    Column("provider", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("account", Text, nullable=False),
    Column("owner", Text, nullable=False),
    moment("at", index=True),
    moment("until", index=True),
    Column("due", Text),
    sqlite_with_rowid=False,
    comment="Files, batches, stored responses, by the vendor's id. `owner`: a user's name, empty where there were no "
    "users. Forgotten after `until`. `due`: of what goes on when its request is over, what its usage counts under, and "
    "what was counted of it.",
)
