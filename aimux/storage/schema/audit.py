"""What was changed, by whom: rows are only ever added."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, LargeBinary, Table, Text

from aimux.storage.schema.base import METADATA, Json, moment

audit = Table(
    "audit",
    METADATA,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    moment("at", index=True),
    Column("actor", Text, nullable=False),
    Column("address", Text),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False, index=True),
    Column("before", Json),
    Column("after", Json),
    Column("previous", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False, unique=True),
    comment="`id` counts without a gap; `previous` is the hash of the entry before.",
)
