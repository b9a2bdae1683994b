"""The first schema."""

from alembic import op

from aimux.storage.schema import METADATA

revision = "0001"
down_revision = None


def upgrade() -> None:
    # No version with a database was released yet: the schema as it stands is the first one.
    METADATA.create_all(op.get_bind(), checkfirst=False)
