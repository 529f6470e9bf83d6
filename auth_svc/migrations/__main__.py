"""``python -m auth_svc.migrations``: bring Auth's tables up to date, and end."""

from auth_svc.config import AuthSettings
from auth_svc.database import Database
from mesh.chassis import config, server


async def main(settings: AuthSettings) -> None:
    """
    Migrate the database of *settings*.

    Raises:
        StartError: The database cannot be reached or migrated.
    """
    database = Database(settings.auth_database)
    try:
        await database.migrate()
    finally:
        await database.aclose()


if __name__ == "__main__":
    _settings = config.load_or_exit(AuthSettings)
    server.run(lambda: main(_settings), "auth-migrations", _settings)
