"""Alembic environment: runs the migrations on the connection of `auth_svc.storage.database`."""

from alembic import context

from auth_svc.storage.database import VERSION_TABLE
from auth_svc.storage.tables import metadata

connection = context.config.attributes["connection"]
# The caller has opened the transaction and holds the lock against other replicas.
context.configure(connection=connection, target_metadata=metadata, version_table=VERSION_TABLE)
context.run_migrations()
