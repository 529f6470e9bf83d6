"""Selects the store that the settings name."""

from mesh.chassis.errors import MeshError
from mesh.chassis.server import StartError
from survey_svc.ports import Store
from survey_svc.storage.redis_store import RedisStore
from survey_svc.storage.sql_store import SqlStore


async def open_store(url: str) -> Store:
    """Open the store at *url*.

    Raises:
        StartError: It cannot be opened.
    """
    try:
        if url.startswith("redis"):
            return await RedisStore.open(url)
        return await SqlStore.open(url)
    except MeshError as error:
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        raise StartError(
            f"Cannot open the store of AMARRE_SURVEY_STORE: {error.message}{cause}"
        ) from error
