"""Blocked users, and sessions opened with a passkey."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ADDED = (("users", "blocked"), ("sessions", "by_passkey"), ("uses", "by_passkey"))


def upgrade() -> None:
    """Add the columns; replicas of the previous version continue to write rows without them."""
    for table, column in ADDED:
        op.add_column(
            table, sa.Column(column, sa.Boolean, nullable=False, server_default=sa.false())
        )


def downgrade() -> None:
    """Drop the columns.

    Sessions of blocked users stay ended, but these users can sign in again.
    """
    for table, column in ADDED:
        op.drop_column(table, column)
