"""The vendors' accounts that several nodes share, on PostgreSQL. With SQLite they are files."""

from __future__ import annotations

from sqlalchemy import Column, LargeBinary, Table, Text

from aimux.storage.schema.base import METADATA, Json, moment

credentials = Table(
    "credentials",
    METADATA,
    Column("instance", Text, primary_key=True),
    Column("account", Text, primary_key=True),
    Column("file_name", Text, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("tag", Text, nullable=False),
    moment("updated_at"),
    comment="`sealed`: the file's content, encrypted with the key of that id. `tag`: another one after each write.",
)

account_states = Table(
    "account_states",
    METADATA,
    Column("instance", Text, primary_key=True),
    Column("account", Text, primary_key=True),
    Column("entry", Json, nullable=False),
    moment("updated_at"),
    comment="`entry`: cooldowns, windows, parked, disabled; what accounts.json holds of an account.",
)
