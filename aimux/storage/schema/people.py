"""Who may call: users, groups, tokens, browsers' sessions, invitations. What is written here is the topic `people`."""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, ForeignKey, Index, LargeBinary, Table, Text, text

from aimux.storage.schema.base import METADATA
from aimux.storage.schema.columns import moment

users = Table(
    "users",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("email", Text),
    Column("role", Text, nullable=False),
    Column("enabled", Boolean, nullable=False, server_default=text("true")),
    Column("access", JSON, nullable=False),
    moment("created_at"),
    moment("updated_at"),
    comment="`access`: what the user may use (providers, account groups, model patterns), a mapping.",
)

groups = Table(
    "groups",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("access", JSON, nullable=False),
    Column("reserved", JSON, nullable=False),
    moment("created_at"),
    moment("updated_at"),
    comment="`reserved`: the accounts that serve nobody else, a list.",
)

memberships = Table(
    "memberships",
    METADATA,
    Column("user_id", Text, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("group_id", Text, ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True, index=True),
)

tokens = Table(
    "tokens",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("sha256", LargeBinary, nullable=False, unique=True),
    Column("prefix", Text, nullable=False),
    Column("label", Text, nullable=False, server_default=text("''")),
    Column("scopes", JSON, nullable=False),
    moment("created_at"),
    moment("expires_at", nullable=True),
    moment("revoked_at", nullable=True),
    moment("used_at", nullable=True),
    Column("used_from", Text),
    comment="`prefix`: the first characters, to recognise it. `used_at`: to the minute.",
)

revoked_subjects = Table(
    "revoked_subjects",
    METADATA,
    Column("issuer", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    moment("revoked_at"),
    Column("reason", Text, nullable=False, server_default=text("''")),
    comment="Whose tokens, signed elsewhere, are taken no more. `issuer` is empty where tokens name none.",
)

sessions = Table(
    "sessions",
    METADATA,
    Column("sha256", LargeBinary, primary_key=True),
    Column("user_id", Text, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    moment("created_at"),
    moment("expires_at"),
    moment("used_at", nullable=True),
    Column("address", Text),
    Column("agent", Text),
    comment="Browsers that are signed in, by the digest of their cookie.",
)

invitations = Table(
    "invitations",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("sha256", LargeBinary, nullable=False, unique=True),
    Column("name", Text),
    Column("email", Text),
    Column("role", Text, nullable=False),
    Column("groups", JSON, nullable=False),
    Column("created_by", Text, nullable=False),
    moment("created_at"),
    moment("expires_at"),
    moment("used_at", nullable=True),
    Column("user_id", Text, ForeignKey("users.id", ondelete="SET NULL")),
)

Index("ix_sessions_expires_at", sessions.c.expires_at)
