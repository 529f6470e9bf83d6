"""
Who reads which files in production: one table of users, groups and secrets.

Compose runs each container as the user given here, `mesh.deploy.compose_secrets` gives each secret
to its reader, Ansible runs the same program on a host, and pods run as the same user.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Reader:
    """The user of a kind of container, and what that user reads."""

    uid: int
    gid: int
    secrets: tuple[str, ...] = ()
    """Files below ``secrets/``; nobody else can read them."""
    data: str = ""
    """The folder in which it keeps data: a volume of the container's own name."""
    image: str = ""
    """The image of others that it runs; empty means an image of ours."""

    @property
    def user(self) -> str:
        """User and group as Compose writes them, ``70:70``."""
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
    # Root, since nobody else may read Docker's socket; without capabilities.
    "alloy": Reader(0, 0, data="/var/lib/alloy", image="docker.io/grafana/alloy:v1.11.3"),
}


def owners() -> dict[str, Reader]:
    """Return the reader of each secret file."""
    return {name: reader for reader in READERS.values() for name in reader.secrets}
