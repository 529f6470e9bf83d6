"""Revoked sessions, for the services that hold tokens of them."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table; replicas of the previous version do not write to it."""
    op.create_table(
        "revocations",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("session_id", sa.String(64), nullable=False),
        sa.Column("user_id", sa.String(36), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("revocations_by_time", "revocations", ["revoked_at"])


def downgrade() -> None:
    """Drop the table; tokens of ended sessions then work until they expire, at most 60 s."""
    op.drop_table("revocations")
