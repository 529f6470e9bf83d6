"""Tables of users, sessions, pending links and rate limit counters."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the four tables."""
    time = sa.DateTime(timezone=True)
    op.create_table(
        "users",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("email", sa.String(254), nullable=False, unique=True),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("created_at", time, nullable=False),
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("digest", sa.LargeBinary(32), nullable=False, unique=True),
        sa.Column(
            "user_id",
            sa.String(36),
            sa.ForeignKey("users.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("device", sa.String(120), nullable=False),
        sa.Column("created_at", time, nullable=False),
        sa.Column("seen_at", time, nullable=False),
        sa.Column("expires_at", time, nullable=False),
    )
    op.create_index("sessions_of_user", "sessions", ["user_id", "created_at"])
    op.create_index("sessions_by_end", "sessions", ["expires_at"])
    op.create_table(
        "links",
        sa.Column("handle", sa.String(36), primary_key=True),
        sa.Column("user_id", sa.String(36), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("expires_at", time, nullable=False),
        sa.Column("used_at", time),
    )
    op.create_table(
        "counters",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("hits", sa.Integer, nullable=False),
        sa.Column("since", time, nullable=False),
    )


def downgrade() -> None:
    """Drop the four tables."""
    for table in ("counters", "links", "sessions", "users"):
        op.drop_table(table)
