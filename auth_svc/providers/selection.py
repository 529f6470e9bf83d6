"""Creates the identity provider selected by the settings."""

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx

from auth_svc.config import AuthSettings
from auth_svc.ports import SessionLife
from auth_svc.providers.appwrite import AppwriteDirectory
from auth_svc.providers.appwrite_client import (
    LIMITS,
    SEGMENTS,
    TIMEOUT,
    AppwriteClient,
    AppwriteProject,
)
from auth_svc.providers.embedded import EmbeddedDirectory
from auth_svc.storage.database import Database
from auth_svc.storage.session_uses import SqlSessionUses
from mesh.chassis.credentials import secret_files
from mesh.chassis.server import StartError
from mesh.chassis.telemetry import http_client

Provider = EmbeddedDirectory | AppwriteDirectory


def utc_now() -> datetime:
    """Return the current time."""
    return datetime.now(UTC)


@contextlib.asynccontextmanager
async def provider(settings: AuthSettings, database: Database) -> AsyncIterator[Provider]:
    """Yield the provider; closes its connections at the end.

    Raises:
        SecretFileError: Appwrite's key cannot be read.
        StartError: The key is invalid or lacks a scope, or the project is unknown.
    """
    life = SessionLife(settings.auth_session_lifetime, settings.auth_session_idle)
    if settings.auth_provider == "embedded":
        yield EmbeddedDirectory(database, life, utc_now)
        return
    project = _project(settings)
    segments = SEGMENTS | set(httpx.URL(project.endpoint).path.split("/"))
    async with http_client("appwrite", segments=segments, limits=LIMITS, timeout=TIMEOUT) as http:
        client = AppwriteClient(http, project, utc_now)
        directory = AppwriteDirectory(
            client,
            SqlSessionUses(database, life),
            utc_now,
            life=life,
            link_url=settings.auth_link_url,
        )
        await directory.check()
        yield directory


def _project(settings: AuthSettings) -> AppwriteProject:
    file = settings.auth_appwrite_key_file
    key = secret_files.read_text("AMARRE_AUTH_APPWRITE_KEY_FILE", file) if file else ""
    if not key.isascii() or not key.isprintable() or not key:
        raise StartError(f"AMARRE_AUTH_APPWRITE_KEY_FILE {file} does not contain an API key.")
    endpoint = settings.auth_appwrite_endpoint.rstrip("/")
    return AppwriteProject(endpoint, settings.auth_appwrite_project, key)
