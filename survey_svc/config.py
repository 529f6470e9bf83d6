"""Settings of the survey service."""

import re
from pathlib import Path
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr, field_validator, model_validator

from mesh.chassis.config import MeshSettings, StoreUrl, WebUrl, store_url
from mesh.chassis.credentials import secret_files
from mesh.chassis.server import StartError

_TOKEN = re.compile(r"[0-9A-Za-z]{32}")


class SurveySettings(MeshSettings):
    """Settings of survey_svc; variables start with ``AMARRE_SURVEY_``."""

    survey_redcap_url: WebUrl
    """URL of REDCap's API with a trailing slash: ``https://redcap.example.org/api/``."""
    survey_redcap_token_file: Path
    """File with the API token of the study's project."""
    survey_profile: Path | None = None
    """The study's profile, YAML; default: the AMARRE study."""
    survey_redcap_time_zone: str = "UTC"
    """The time zone of REDCap's clock, such as ``Europe/Paris``; used for `since`."""
    survey_store: StoreUrl = "sqlite+aiosqlite:///survey.db"
    """The store shared by all replicas: ``sqlite+aiosqlite:///…``, ``postgresql+asyncpg://…``, ``redis://…``."""
    survey_cache: str = Field(default="memory", pattern=r"^(memory|rediss?://.+)$")
    """``memory``, or ``redis://…`` to share the cache between replicas."""
    survey_watches_per_user: int = Field(default=12, ge=1)
    """Streams of changes that one user may have open."""
    survey_watches_total: int = Field(default=500, ge=1)
    """Streams of changes that all users may have open."""
    survey_unknown_ids_per_user: int = Field(default=30, ge=1)
    """Ids of requests that are not the user's, refilled over a minute."""

    @field_validator("survey_redcap_url")
    @classmethod
    def _ends_with_slash(cls, url: str) -> str:
        if not url.endswith("/") or set(url) & set("?#@"):
            raise ValueError("must end with a slash, without a query or user name")
        return url

    @model_validator(mode="after")
    def _token_is_not_in_the_clear(self) -> "SurveySettings":
        if self.env == "production" and not self.survey_redcap_url.startswith("https://"):
            raise ValueError(
                "AMARRE_SURVEY_REDCAP_URL must start with https:// in production: "
                "every call carries the API token"
            )
        return self

    @field_validator("survey_redcap_time_zone")
    @classmethod
    def _is_time_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError) as exc:
            raise ValueError("must be a time zone such as Europe/Paris") from exc
        return name

    @field_validator("survey_cache")
    @classmethod
    def _is_memory_or_redis(cls, text: str) -> str:
        return text if text == "memory" else store_url(text)

    @field_validator("survey_store")
    @classmethod
    def _is_known(cls, url: str) -> str:
        known = "sqlite+aiosqlite:///", "postgresql+asyncpg://", "redis://", "rediss://"
        if not url.startswith(known):
            raise ValueError(f"must start with one of {', '.join(known)}")
        return url


def read_token(path: Path) -> SecretStr:
    """Read REDCap's API token from its file.

    Raises:
        SecretFileError: The file cannot be read or is not private.
        StartError: The file does not contain a token.
    """
    token = secret_files.read_text("AMARRE_SURVEY_REDCAP_TOKEN_FILE", path)
    if not _TOKEN.fullmatch(token):
        raise StartError(
            f"The file {path} does not contain a REDCap token: 32 letters and digits are expected."
        )
    return SecretStr(token)
