"""Limits count by the model that was asked for: what is known of their windows after a restart has to tell it, too."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

COMMENT = (
    "What requests are counted under. `id` is a hash of the rest, so that every node gives it the same. "
    "`served`: the key that has no user, token, groups and mount, and the rest of this one."
)
NEW = (
    "What requests are counted under. `id` is a hash of the rest, so that every node gives it the same. "
    "`served`: the key that has no user, token, groups, mount and `asked`, and the rest of this one. "
    "`asked`: the model by which limits counted them, where `model`, which served them, is another."
)


def upgrade() -> None:
    op.add_column("usage_keys", sa.Column("asked", sa.Text(), nullable=False, server_default=sa.text("''")))
    if op.get_bind().dialect.name != "sqlite":  # which keeps no comments
        op.create_table_comment("usage_keys", NEW, existing_comment=COMMENT)
