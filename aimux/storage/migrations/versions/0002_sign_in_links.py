"""Links that sign a browser in, at whichever node they end."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "sign_in_links",
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("token_id", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_sign_in_links")),
        comment="Links that sign a browser in, by the digest of their code: one that was used is deleted. `user` and "
        "`token_id` become the session's.",
    )
