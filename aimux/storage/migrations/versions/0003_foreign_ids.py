"""Foreign ids are kept in the order of time: in their own each of them is a page more to write."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    for column in ("request_id", "upstream_id"):
        name = f"ix_requests_{column}"
        given = sa.text(f"{column} IS NOT NULL")
        op.drop_index(name, table_name="requests")
        op.create_index(name, "requests", ["at", column], sqlite_where=given, postgresql_where=given)
