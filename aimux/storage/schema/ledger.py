"""Finished requests, and sums of them.

Every request is counted under a key: who sent it, and what served it. `usage_hours` is written in the transaction of
its requests; a past hour is folded into `usage_conversations`, a day's hours into `usage_days`, a month's into
`usage_months` (aimux/metering/rollups.py).

Costs are billionths of a dollar: a short embedding costs less than a millionth.
"""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Float, Index, Integer, Table, Text, text

from aimux.storage.schema.base import METADATA, moment

MEASURES = (
    "requests",
    "errors",
    "unpriced",
    "estimated",
    "input",
    "output",
    "cache_read",
    "cache_write",
    "cache_write_1h",
    "reasoning",
    "server_tools",
    "cost",
    "duration",
)
"""What is summed up: requests, failed, unpriced and estimated ones; tokens by kind; cost; milliseconds."""


def _measures() -> list[Column[int]]:
    return [Column(name, BigInteger, nullable=False) for name in MEASURES]


requests = Table(
    "requests",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("key", BigInteger, nullable=False),
    moment("at"),
    Column("node", Text, nullable=False),
    Column("conversation", Text),
    Column("method", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("error", Text, nullable=False),
    Column("duration", BigInteger, nullable=False),
    Column("ttfb", BigInteger),
    Column("bytes_in", BigInteger, nullable=False),
    Column("bytes_out", BigInteger, nullable=False),
    Column("input", BigInteger, nullable=False),
    Column("output", BigInteger, nullable=False),
    Column("cache_read", BigInteger, nullable=False),
    Column("cache_write", BigInteger, nullable=False),
    Column("cache_write_1h", BigInteger, nullable=False),
    Column("reasoning", BigInteger, nullable=False),
    Column("server_tools", BigInteger, nullable=False),
    Column("cost", BigInteger),
    Column("estimated", Boolean, nullable=False),
    Column("request_id", Text),
    Column("upstream_id", Text),
    Column("detail", JSON(none_as_null=True)),
    sqlite_with_rowid=False,
    comment="Ids are in the order of time. `cost` null: no price is known. `request_id`: where it is the client's own. "
    "`upstream_id`: the vendor's, of the last attempt that had one.",
)

# Under these two a request is found by somebody else's id. They begin with the time, and are read from their end: such
# ids are as good as random, and each would go to a page of its own, of 4 kB, which took three times as long as all
# else that the ledger does with a row.
Index(
    "ix_requests_request_id",
    requests.c.at,
    requests.c.request_id,
    sqlite_where=text("request_id IS NOT NULL"),
)

Index(
    "ix_requests_upstream_id",
    requests.c.at,
    requests.c.upstream_id,
    sqlite_where=text("upstream_id IS NOT NULL"),
)

Index(
    "ix_requests_unpriced",
    requests.c.id,
    sqlite_where=text("cost IS NULL"),
)

usage_keys = Table(
    "usage_keys",
    METADATA,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("user", Text, nullable=False, index=True),
    Column("token", Text, nullable=False),
    Column("groups", JSON, nullable=False),
    Column("provider", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("mount", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("class", Text, nullable=False),
    Column("client", Text, nullable=False),
    Column("asked", Text, nullable=False, server_default=text("''")),
    Column("served", BigInteger, nullable=False),
    comment="What requests are counted under. `id` is a hash of the rest, so that every node gives it the same. "
    "`served`: the key that has no user, token, groups, mount and `asked`, and the rest of this one. "
    "`asked`: the model by which limits counted them, where `model`, which served them, is another.",
)

usage_hours = Table(
    "usage_hours",
    METADATA,
    moment("start", primary_key=True),
    Column("key", BigInteger, primary_key=True, autoincrement=False),
    *_measures(),
    sqlite_with_rowid=False,
    comment="Key 0 is the sum of all.",
)

Index(
    "ix_usage_hours_total",
    usage_hours.c.start,
    sqlite_where=text("key = 0"),
)

usage_days = Table(
    "usage_days",
    METADATA,
    Column("key", BigInteger, primary_key=True, autoincrement=False),
    moment("start", primary_key=True),
    *_measures(),
    sqlite_with_rowid=False,
    comment="Days that are over, in the time zone of the configuration.",
)

Index("ix_usage_days_start", usage_days.c.start)

usage_days_served = Table(
    "usage_days_served",
    METADATA,
    moment("start", primary_key=True),
    Column("key", BigInteger, primary_key=True, autoincrement=False),
    *_measures(),
    sqlite_with_rowid=False,
    comment="The days of `usage_days` by `usage_keys.served`: for questions that nobody's name is in.",
)

usage_months = Table(
    "usage_months",
    METADATA,
    Column("key", BigInteger, primary_key=True, autoincrement=False),
    moment("start", primary_key=True),
    *_measures(),
    sqlite_with_rowid=False,
)

usage_conversations = Table(
    "usage_conversations",
    METADATA,
    moment("start", primary_key=True),
    Column("conversation", Text, primary_key=True),
    Column("user", Text, primary_key=True),
    *_measures(),
    sqlite_with_rowid=False,
    comment="Hours that are over. Kept as long as requests are.",
)

Index(
    "ix_usage_conversations_conversation",
    usage_conversations.c.conversation,
    usage_conversations.c.user,
    usage_conversations.c.start,
)

folded = Table(
    "usage_folded",
    METADATA,
    Column("name", Text, primary_key=True),
    moment("until"),
    comment="Up to when hours were folded into `conversations`, `days` and `months`; 0: not yet.",
)

account_windows = Table(
    "account_windows",
    METADATA,
    Column("provider", Text, primary_key=True),
    Column("account", Text, primary_key=True),
    Column("window", Text, primary_key=True),
    moment("at", primary_key=True),
    Column("used", Float, nullable=False),
    moment("resets_at", nullable=True),
    sqlite_with_rowid=False,
    comment="How far an account's windows were used, as its vendor told: 1 is the whole.",
)

prices = Table(
    "prices",
    METADATA,
    Column("provider", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("tariff", JSON(none_as_null=True)),
    Column("source", Text, nullable=False),
    moment("at"),
    comment="Prices of models that were asked for. `tariff` null: the source of prices knows none.",
)
