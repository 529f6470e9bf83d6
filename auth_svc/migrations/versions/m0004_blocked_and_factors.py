"""Who is blocked, and which sessions were opened with a passkey."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ADDED = (("users", "blocked"), ("sessions", "by_passkey"), ("uses", "by_passkey"))


def upgrade() -> None:
    """Add the columns; replicas of the version before go on writing rows without them."""
    for table, column in ADDED:
        op.add_column(
            table, sa.Column(column, sa.Boolean, nullable=False, server_default=sa.false())
        )


def downgrade() -> None:
    """Drop the columns.

    Nobody who was blocked comes back by it: their sessions ended, but they can sign in again.
    """
    for table, column in ADDED:
        op.drop_column(table, column)
