"""
Users, groups and secrets of production in one table.

Compose runs each container as its user here, `mesh.deploy.compose_secrets` sets the owner of each
secret, Ansible runs the same program on a host, and pods run as the same user.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Reader:
    """The user of a kind of container, and the files it reads."""

    uid: int
    gid: int
    secrets: tuple[str, ...] = ()
    """Files in ``secrets/`` that only this user can read."""
    data: str = ""
    """The data folder: a volume with the name of the container."""
    image: str = ""
    """A third-party image; empty for an image of ours."""

    @property
    def user(self) -> str:
        """User and group in Compose notation, ``70:70``."""
        return f"{self.uid}:{self.gid}"


WORKLOADS = Reader(
    uid=65532,
    gid=65532,
    secrets=(
        "amarre_auth_database",
        "amarre_survey_cache",
        "amarre_survey_store",
        "auth-signing-key.pem",
        "pseudonym-key",
        "redcap-super-token",
        "redcap-token",
        "smtp-password",
    ),
)
"""Services, sandbox and certificate authority: our own images."""

READERS: Mapping[str, Reader] = {
    "workloads": WORKLOADS,
    "envoy": Reader(
        WORKLOADS.uid,
        WORKLOADS.gid,
        ("edge/tls.crt", "edge/tls.key"),
        image="docker.io/envoyproxy/envoy:distroless-v1.40.0",
    ),
    "postgres": Reader(
        70,
        70,
        ("postgres-password", "postgres-auth-password", "postgres-survey-password"),
        data="/var/lib/postgresql/data",
        image="docker.io/library/postgres:16-alpine",
    ),
    "redis": Reader(
        999, 1000, ("redis.conf",), data="/data", image="docker.io/library/redis:7-alpine"
    ),
    "prometheus": Reader(
        65534, 65534, data="/prometheus", image="docker.io/prom/prometheus:v3.7.3"
    ),
    "alertmanager": Reader(
        65534,
        65534,
        ("alertmanager/smtp-password", "alertmanager/slack-url", "alertmanager/webhook-token"),
        data="/alertmanager",
        image="docker.io/prom/alertmanager:v0.29.0",
    ),
    "otel-collector": Reader(
        10001, 10001, image="docker.io/otel/opentelemetry-collector-contrib:0.161.0"
    ),
    "tempo": Reader(10001, 10001, data="/var/tempo", image="docker.io/grafana/tempo:2.9.0"),
    "jaeger": Reader(
        10001, 10001, data="/var/lib/jaeger", image="docker.io/jaegertracing/jaeger:2.11.0"
    ),
    "loki": Reader(10001, 10001, data="/loki", image="docker.io/grafana/loki:3.5.7"),
    "grafana": Reader(
        472,
        0,
        ("grafana-password",),
        data="/var/lib/grafana",
        image="docker.io/grafana/grafana:12.3.0",
    ),
    # Root, since only root may read Docker's socket; without capabilities.
    "alloy": Reader(0, 0, data="/var/lib/alloy", image="docker.io/grafana/alloy:v1.11.3"),
}


def owners() -> dict[str, Reader]:
    """Return the reader of each secret file."""
    return {name: reader for reader in READERS.values() for name in reader.secrets}
