"""Database setup: tables, initial study and tokens."""

import contextlib
import sqlite3

from sandbox.redcap.config import Config, ConfigError
from sandbox.redcap.design import study_files as study
from sandbox.redcap.errors import ApiError
from sandbox.redcap.store import Store, add_project, add_token, project_ids

SUPER = 0
"""The project number of a super token, which belongs to no project."""


def open_store(config: Config) -> Store:
    """Open the database; add the study if the database is new.

    Raises:
        ConfigError: The database or the study cannot be used.
    """
    try:
        store = Store(config.database)
        with contextlib.ExitStack() as undo:
            undo.callback(store.close)
            with store.writing() as db:
                known = project_ids(db)
                if not known:
                    known = [add_project(db, study.from_file(config.study))]
                # The token files take precedence over what an earlier start stored.
                add_token(db, config.token, known[0], study.USERNAME)
                add_token(db, config.super_token, SUPER, study.USERNAME)
            undo.pop_all()
    except sqlite3.Error as exc:
        raise ConfigError(f"The database {config.database} cannot be opened: {exc}.") from exc
    except OSError as exc:
        raise ConfigError(f"The study {config.study} cannot be read: {exc.strerror}.") from exc
    except (ApiError, ValueError, TypeError) as exc:
        raise ConfigError(f"The study {config.study} is invalid: {exc}") from exc
    return store
