"""Settings of health_svc."""

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from health_svc import probe_limits
from mesh.chassis.config import MeshSettings, WebUrl


class HealthSettings(MeshSettings):
    """Settings of health_svc, in addition to those of every process."""

    health_allowed_hosts: Annotated[frozenset[str], NoDecode] = frozenset()
    """Hosts that may be probed, comma-separated; each may end in ``:443``."""
    health_backends: dict[str, WebUrl] = Field(default_factory=dict)
    """Backends of the mesh, as JSON: name to the URL of its health check."""
    health_allow_private: bool = False
    """Whether allowed hosts may resolve to non-public addresses; not allowed in production."""

    health_probes_per_user: int = Field(default=probe_limits.PER_USER, ge=1)
    """Probes of one user in flight; more are refused with 429."""
    health_probes_total: int = Field(default=probe_limits.TOTAL, ge=1, le=90)
    """Probes of all users in flight; more are refused with 503. The rest serves status."""

    @field_validator("health_allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        hosts = {
            host.strip().lower().removesuffix(":443").removesuffix(".") for host in value.split(",")
        }
        if odd := sorted(host for host in hosts if set(host) & set(":/* ")):
            raise ValueError(f"{odd} are not host names; write names, the port may only be 443")
        return frozenset(hosts - {""})

    @field_validator("health_allow_private")
    @classmethod
    def _not_in_production(cls, value: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 - pydantic's signature
        if value and info.data.get("env") == "production":
            raise ValueError("true is not allowed in production")
        return value
