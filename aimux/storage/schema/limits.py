"""What people may use, as far as it is not in the configuration. Writes here have the topic `limits`."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Index, Table, Text

from aimux.storage.schema.base import METADATA, moment

limits = Table(
    "limits",
    METADATA,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("allowances", JSON, nullable=False),
    moment("updated_at"),
    comment="`kind`: user, group or token. `allowances`: as the section `limits.groups.NAME` of the configuration.",
)

grants = Table(
    "grants",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("limit", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    moment("since"),
    moment("until"),
    Column("given_by", Text, nullable=False),
    comment="More of a limit until an end. Rows are only ever added. Costs in billionths of a dollar.",
)

Index("ix_grants_until", grants.c.until)

limit_shares = Table(
    "limit_shares",
    METADATA,
    Column("counter", Text, primary_key=True),
    moment("start", primary_key=True),
    Column("node", Text, primary_key=True),
    Column("share", BigInteger, nullable=False),
    Column("used", BigInteger, nullable=False),
    Column("gone", BigInteger, nullable=False),
    moment("heard_at", index=True),
    comment="A node's part of a budget's window, and what is gone of it there: aimux/limits/shares.py.",
)
