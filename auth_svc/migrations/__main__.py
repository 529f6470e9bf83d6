"""``python -m auth_svc.migrations [REVISION]``: upgrade or downgrade Auth's database schema.

Before returning to an earlier version, downgrade with the later one, which contains the revisions.
"""

import sys

from auth_svc.config import AuthSettings
from auth_svc.storage.database import Database
from mesh.chassis import config, server


async def main(settings: AuthSettings, back_to: str = "") -> None:
    """Migrate the database of *settings*.

    Raises:
        StartError: The database cannot be reached or migrated.
    """
    database = Database(settings.auth_database)
    try:
        await database.migrate(back_to)
    finally:
        await database.aclose()


if __name__ == "__main__":
    _settings = config.load_or_exit(AuthSettings)
    server.run(lambda: main(_settings, *sys.argv[1:2]), "auth-migrations", _settings)
