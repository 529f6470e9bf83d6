"""Passkeys and the challenges of their ceremonies."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create both tables."""
    time = sa.DateTime(timezone=True)
    op.create_table(
        "passkeys",
        sa.Column("id", sa.String(1366), primary_key=True),
        sa.Column("user_id", sa.String(36), nullable=False),
        sa.Column("public_key", sa.LargeBinary, nullable=False),
        sa.Column("sign_count", sa.BigInteger, nullable=False),
        sa.Column("name", sa.String(60), nullable=False),
        sa.Column("created_at", time, nullable=False),
        sa.Column("used_at", time),
    )
    op.create_index("passkeys_of_user", "passkeys", ["user_id", "created_at"])
    op.create_table(
        "ceremonies",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("user_id", sa.String(36), nullable=False),
        sa.Column("challenge", sa.LargeBinary(64), nullable=False),
        sa.Column("expires_at", time, nullable=False),
    )


def downgrade() -> None:
    """Drop both tables."""
    op.drop_table("ceremonies")
    op.drop_table("passkeys")
