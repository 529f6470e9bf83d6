"""Alembic migrations of Auth's database; run at start by `auth_svc.storage.database`."""
