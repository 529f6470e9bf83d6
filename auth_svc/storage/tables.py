"""The tables of Auth's database, as created by the migrations."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    TypeDecorator,
    false,
)


class UtcTime(TypeDecorator[datetime]):
    """A timestamp, stored in UTC because SQLite has no time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Return *value* in UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Return *value* with its time zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData()

users = Table(
    "users",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("email", String(254), nullable=False, unique=True),
    Column("labels", JSON, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("blocked", Boolean, nullable=False, server_default=false()),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("device", String(120), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("seen_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("by_passkey", Boolean, nullable=False, server_default=false()),
    Index("sessions_of_user", "user_id", "created_at"),
    Index("sessions_by_end", "expires_at"),
)

links = Table(
    "links",
    metadata,
    Column("handle", String(36), primary_key=True),
    # Not a foreign key: with another provider, users are not in this database.
    Column("user_id", String(36), nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("tries", Integer, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("used_at", UtcTime),
)

issued_links = Table(
    "issued_links",
    metadata,
    # Every link that was sent, so that an earlier one does not count as a guess.
    Column("digest", LargeBinary(32), primary_key=True),
    Column("expires_at", UtcTime, nullable=False),
)

uses = Table(
    "uses",
    metadata,
    # Sessions of a provider that does not record their last use or how they were opened.
    Column("session_id", String(36), primary_key=True),
    Column("seen_at", UtcTime, nullable=False),
    Column("by_passkey", Boolean, nullable=False, server_default=false()),
)

passkeys = Table(
    "passkeys",
    metadata,
    Column("id", String(1366), primary_key=True),
    Column("user_id", String(36), nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    Column("sign_count", BigInteger, nullable=False),
    Column("name", String(60), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("used_at", UtcTime),
    Index("passkeys_of_user", "user_id", "created_at"),
)

ceremonies = Table(
    "ceremonies",
    metadata,
    Column("id", String(32), primary_key=True),
    # Empty for a sign-in, when the user is not known yet.
    Column("user_id", String(36), nullable=False),
    Column("challenge", LargeBinary(64), nullable=False),
    Column("expires_at", UtcTime, nullable=False),
)

revocations = Table(
    "revocations",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    # One of the two is empty.
    Column("session_id", String(64), nullable=False),
    Column("user_id", String(36), nullable=False),
    Column("revoked_at", UtcTime, nullable=False),
    Index("revocations_by_time", "revoked_at"),
)

buckets = Table(
    "buckets",
    metadata,
    Column("key", String(64), primary_key=True),
    # Milliseconds since 1970: integers behave the same in both databases.
    Column("full_at", BigInteger, nullable=False),
)

# Kept for replicas of the previous version during an upgrade.
counters = Table(
    "counters",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("hits", Integer, nullable=False),
    Column("since", UtcTime, nullable=False),
)
