"""Settings from the environment: read once, validated, all errors reported together."""

import os
import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError as SourceError

from mesh.chassis.credentials.secret_files import SecretFileError, check_private
from mesh.chassis.identity import SpiffeId

S = TypeVar("S", bound=BaseSettings)
PREFIX = "AMARRE_"
_PASSWORD = re.compile(r"//[^/@\s]*@")
"""User information of a URL, which may contain a password."""
_WITH_UNIT = re.compile(r"([0-9]{1,9}(?:\.[0-9]+)?)(ms|s|m|h|d)", re.ASCII)
_UNIT_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_AMBIGUOUS = re.compile(r"[\x00-\x20\x7f\\]|\s")
"""Characters that some readers of URLs skip, and browsers replace: white space and backslashes."""
SECRETS_DIR = f"{PREFIX}SECRETS_DIR"
GRPC_EXPERIMENTS = "-event_engine_client,-event_engine_listener"
"""Value of the variable ``GRPC_EXPERIMENTS``, which gRPC reads when it is imported.

Connections then use the poller of grpc.aio instead of the threads of gRPC's EventEngine, which
cost a tenth of a request's CPU time (ADR 15).
"""


class SettingsError(Exception):
    """Some settings are invalid; the message names each variable and what it accepts."""


def web_url(text: str) -> str:
    """Return *text* if it is an http or https URL that every reader understands alike.

    Raises:
        ValueError: Its scheme, host or port cannot be used.
    """
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # A port that is not a number, or a bracket without its partner.
        usable = False
    if not usable or _AMBIGUOUS.search(text):
        raise ValueError("use http://HOST[:PORT]/PATH or https://…, with a port from 1 to 65535")
    return text


def store_url(text: str) -> str:
    """Return *text* if it is the URL of a database or Redis.

    Raises:
        ValueError: It is not a URL, or its port cannot be used.
    """
    from sqlalchemy.engine import make_url  # Only processes with a store have it.
    from sqlalchemy.exc import ArgumentError

    try:
        port = urlsplit(text).port if text.startswith("redis") else make_url(text).port
    except (ArgumentError, ValueError):
        port = 0
    if port is not None and not 0 < port < 65536:
        # The message does not repeat the URL, which may contain a password.
        raise ValueError("is not a URL SCHEME://…HOST[:PORT]/…, with a port from 1 to 65535")
    return text


WebUrl = Annotated[str, AfterValidator(web_url)]
OptionalWebUrl = Annotated[str, AfterValidator(lambda text: text and web_url(text))]
"""A `WebUrl`, or empty for none."""
StoreUrl = Annotated[str, AfterValidator(store_url)]
"""URL of a database, as SQLAlchemy reads it, or of Redis."""


class EnvironmentSettings(BaseSettings):
    """Settings from variables that start with ``AMARRE_``; durations have a unit."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    @field_validator("*", mode="before")
    @classmethod
    def _durations_have_units(cls, value: object, info: ValidationInfo) -> object:
        field = cls.model_fields[info.field_name or ""]
        if field.annotation is timedelta and isinstance(value, str):
            return _duration(value.strip())
        return value


def _duration(text: str) -> str | timedelta:
    """Return the duration in *text*, or *text* if it has the form of ISO 8601.

    Raises:
        ValueError: It has neither a unit nor that form.
    """
    if found := _WITH_UNIT.fullmatch(text):
        return timedelta(seconds=float(found[1]) * _UNIT_SECONDS[found[2]])
    if text.lstrip("-").startswith("P"):
        return text
    raise ValueError("use a number with a unit, such as 500ms, 10s, 5m, 2h or 7d")


class MeshSettings(EnvironmentSettings):
    """Settings of every process of the mesh; variables start with ``AMARRE_``."""

    env: Literal["development", "production"] = "development"
    """The environment; ``production`` rejects the sandbox and weak settings."""
    transport: Literal["direct", "sidecar"] = "direct"
    """``direct``: this process terminates mTLS itself. ``sidecar``: its Envoy does."""
    trust_domain: str = "amarre.local"
    """The SPIFFE trust domain of accepted identities."""
    namespace: str = "amarre"
    """The namespace of accepted identities, except those named below."""
    namespaces: dict[str, str] = Field(default_factory=dict)
    """Workloads in other namespaces, as JSON: ``{"auth": "amarre-auth"}``."""
    instance: str = ""
    """The name of this replica, such as ``survey-2``."""
    listen: str = ""
    """Address to serve gRPC on: ``127.0.0.1:3001``, or ``unix:/run/survey.sock``."""
    svid_dir: Path = Path("certs")
    """Folder with ``tls.crt``, ``tls.key`` and ``ca.crt`` of this process (direct transport)."""
    peers: dict[str, str] = Field(default_factory=dict)
    """Addresses of other services, as JSON: ``{"auth": "127.0.0.1:3002"}``."""
    key_set_url: WebUrl = "http://auth/.well-known/jwks.json"
    """URL of the public keys of user tokens."""
    key_set_socket: Path | None = None
    """The Unix socket over which ``AMARRE_KEY_SET_URL`` is fetched; unset: over the network."""
    metrics_listen: str = ""
    """Address of ``/metrics``, ``127.0.0.1:3051``; empty disables metrics."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The minimum log level."""
    pseudonym_key_file: Path | None = None
    """File with the key of user pseudonyms in logs; default: a random key per process."""
    drain_timeout: timedelta = Field(default=timedelta(seconds=10), ge=timedelta(0))
    """How long calls in flight may continue after SIGTERM."""

    def identity(self, name: str) -> SpiffeId:
        """Return the identity of the workload *name* in this mesh."""
        return SpiffeId(self.trust_domain, self.namespaces.get(name, self.namespace), name)


def load(kind: type[S]) -> S:
    """Read settings of *kind* from the environment of this process.

    Variables that are not set are read from the folder ``AMARRE_SECRETS_DIR``, one file per
    variable, named in lower case. Use it for database URLs with passwords.

    Raises:
        SettingsError: A variable is missing or invalid; the message names all of them.
    """
    secrets = os.environ.get(SECRETS_DIR) or None
    if secrets and not Path(secrets).is_dir():
        raise SettingsError(f"  {SECRETS_DIR} holds {secrets!r}: this folder does not exist")
    try:
        for file in sorted(Path(secrets).glob(f"{PREFIX.lower()}*") if secrets else ()):
            check_private(SECRETS_DIR, file)
    except SecretFileError as error:
        raise SettingsError(f"  {error}") from error
    try:
        return kind(_secrets_dir=secrets)
    except (ValidationError, SourceError) as exc:
        faults = exc.errors() if isinstance(exc, ValidationError) else []
        lines = [_explain(fault["loc"], fault["msg"]) for fault in faults] or [f"  {exc}"]
        raise SettingsError("\n".join(lines)) from exc


def load_or_exit(kind: type[S]) -> S:
    """Read settings of *kind*; print what is wrong and exit with 2 if they are invalid."""
    try:
        return load(kind)
    except SettingsError as error:
        sys.stderr.write(f"Invalid settings:\n{error}\n")
        sys.exit(2)


def _explain(location: tuple[int | str, ...], message: str) -> str:
    if not location:
        return f"  {message}"  # A rule about several settings; its message names them.
    variable = f"{PREFIX}{str(location[0]).upper()}"
    value = os.environ.get(variable)
    held = "is not set" if value is None else f"holds {_PASSWORD.sub('//***@', value)!r}"
    if value is not None and any(word in variable for word in ("SECRET", "TOKEN", "PASSWORD")):
        held = "is set"
    return f"  {variable} {held}: {message}"
