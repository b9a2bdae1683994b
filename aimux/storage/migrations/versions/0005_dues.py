"""What is used when the request that asked for it is over: what it counts under is kept with what the request made."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

COMMENT = (
    "Files, batches, stored responses, by the vendor's id. `owner`: a user's name, empty where there were no users. "
    "Forgotten after `until`."
)
DUE = " `due`: of what goes on when its request is over, what its usage counts under, and what was counted of it."


def upgrade() -> None:
    op.add_column("deposits", sa.Column("due", sa.Text(), nullable=True))
    if op.get_bind().dialect.name != "sqlite":  # which keeps no comments
        op.create_table_comment("deposits", COMMENT + DUE, existing_comment=COMMENT)
