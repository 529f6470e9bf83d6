"""Links that were sent, so that an earlier link does not count as a guess of the newest one."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table; replicas of the previous version do not write to it."""
    op.create_table(
        "issued_links",
        sa.Column("digest", sa.LargeBinary(32), primary_key=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    """Drop the table; earlier links count as wrong attempts again."""
    op.drop_table("issued_links")
