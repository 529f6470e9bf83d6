"""Run by Alembic: the migrations, on the connection that `auth_svc.storage.database` opened."""

from alembic import context

from auth_svc.storage.database import VERSION_TABLE
from auth_svc.storage.tables import metadata

connection = context.config.attributes["connection"]
# The caller opened the transaction and holds the lock that keeps other replicas out.
context.configure(connection=connection, target_metadata=metadata, version_table=VERSION_TABLE)
context.run_migrations()
