"""Who may call: users, groups, tokens and invitations, whose topic is `people`; browsers' sessions and links to one,
which nobody is told of.

A user is identified by name: the configuration's users have no row, but their tokens, sessions and usage name them in
the same way. `revision` is the id of the audit entry of a row's last change, so that whoever keeps a copy only reads
what is new. For that a removed row stays, with `removed_at`, for as long as somebody could have the old one.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, LargeBinary, Table, Text

from aimux.storage.schema.base import LOCAL, METADATA, Json, moment


def _revision() -> Column[int]:
    return Column("revision", BigInteger, nullable=False, index=True)


users = Table(
    "users",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("email", Text),
    Column("role", Text, nullable=False),
    Column("groups", Json, nullable=False),
    Column("scopes", Json, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("pin_accounts", Boolean, nullable=False),
    Column("own_login", Boolean, nullable=False),
    moment("created_at"),
    moment("removed_at", nullable=True),
    _revision(),
    comment="`scopes`: what the user may use, as a list of provider:NAME, model:PATTERN and group:NAME.",
)

groups = Table(
    "groups",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("reserved", Boolean, nullable=False),
    Column("scopes", Json, nullable=False),
    Column("own_login", Boolean, nullable=False),
    moment("created_at"),
    moment("removed_at", nullable=True),
    _revision(),
    comment="`reserved`: the accounts in it serve its members alone.",
)

tokens = Table(
    "tokens",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("user", Text, nullable=False, index=True),
    Column("sha256", LargeBinary, nullable=False, unique=True),
    Column("shown", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("scopes", Json, nullable=False),
    moment("created_at"),
    moment("expires_at", nullable=True),
    moment("revoked_at", nullable=True),
    moment("used_at", nullable=True),
    Column("used_from", Text),
    _revision(),
    comment="`shown`: the first characters, to recognise it. `used_at` (to the minute) changes without a revision.",
)

revoked_subjects = Table(
    "revoked_subjects",
    METADATA,
    Column("issuer", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    moment("revoked_at", nullable=True),
    Column("reason", Text, nullable=False),
    _revision(),
    comment="Whose tokens, signed elsewhere, are taken no more. `issuer` is empty where tokens name none; without "
    "`revoked_at` they are taken again.",
)

sessions = Table(
    "sessions",
    METADATA,
    Column("sha256", LargeBinary, primary_key=True),
    Column("user", Text, nullable=False, index=True),
    Column("token_id", Text, nullable=False),
    moment("created_at"),
    moment("expires_at"),
    moment("used_at"),
    Column("address", Text, nullable=False),
    Column("agent", Text, nullable=False),
    comment="Browsers that are signed in, by the digest of their cookie. `user` is empty for the machine's own key, "
    "`token_id` names the token that opened the session and ends it.",
)

invitations = Table(
    "invitations",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("sha256", LargeBinary, nullable=False, unique=True),
    Column("user", Text, nullable=False, index=True),
    Column("created_by", Text, nullable=False),
    moment("created_at"),
    moment("expires_at"),
    comment="Links that are open, by the digest of their code: one that was used is deleted.",
)

sign_in_links = Table(
    "sign_in_links",
    METADATA,
    Column("sha256", LargeBinary, primary_key=True),
    Column("user", Text, nullable=False),
    Column("token_id", Text, nullable=False),
    moment("expires_at"),
    comment="Links that sign a browser in, by the digest of their code: one that was used is deleted. `user` and "
    "`token_id` become the session's.",
    info=LOCAL,
)

Index("ix_sessions_expires_at", sessions.c.expires_at)
