"""Token buckets instead of counters, so that limits refill evenly."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table; replicas of the previous version still count in the old one."""
    op.create_table(
        "buckets",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("full_at", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Drop the table; counting resumes in the old one."""
    op.drop_table("buckets")
