"""Alembic migrations of Auth's database; run at startup by `auth_svc.storage.database`."""
