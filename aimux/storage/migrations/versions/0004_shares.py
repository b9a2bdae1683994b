"""A node's share says what of it is in the ledger, apart from what the node told to be gone."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.alter_column("limit_shares", "reserved", new_column_name="gone")
    op.execute("UPDATE limit_shares SET gone = gone + used")
