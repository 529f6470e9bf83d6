"""What Alembic runs: the migrations, on the connection that `auth_svc.storage.database` opened."""

from alembic import context

from auth_svc.storage.tables import metadata

connection = context.config.attributes["connection"]
# The caller opened the transaction and holds the lock that keeps other replicas out.
context.configure(
    connection=connection, target_metadata=metadata, version_table="auth_alembic_version"
)
context.run_migrations()
