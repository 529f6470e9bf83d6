"""What the workloads stand on: PostgreSQL, Redis, and the stand-ins of trials."""

from typing import Any

from mesh import topology
from mesh.render.compose.workloads import hardened, image
from mesh.render.docker import STATE

Service = dict[str, Any]
SECRETS = (
    "postgres-password",
    "postgres-auth-password",
    "postgres-survey-password",
    "redis.conf",
    "redcap-super-token",
    "grafana-password",
)
_MOUNT = "/run/secrets"


def services() -> dict[str, Service]:
    """Return the services."""
    return {"postgres": _postgres(), "redis": _redis(), "redcap": _redcap(), "outbox": _outbox()}


def volumes() -> dict[str, Any]:
    """Return the volumes; backups are of these."""
    return {"postgres": {}, "redis": {}, "stand-ins": {}}


def files() -> dict[str, str]:
    """Return what PostgreSQL runs when its volume is new."""
    return {"postgres/init.sh": INIT}


INIT = """\
#!/usr/bin/env bash
# Makes a database and a role for each service that keeps something, when the volume is new.
set -euo pipefail
for service in auth survey; do
  password=$(cat "/run/secrets/postgres-$service-password")
  psql --set ON_ERROR_STOP=1 --set name="$service" --set password="$password" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
done
"""


def _postgres() -> Service:
    names = [name for name in SECRETS if name.startswith("postgres")]
    return {
        "image": "docker.io/library/postgres:16-alpine",
        "environment": {
            "POSTGRES_USER": "postgres",
            "POSTGRES_PASSWORD_FILE": f"{_MOUNT}/postgres-password",
            "POSTGRES_INITDB_ARGS": "--auth-host=scram-sha-256 --data-checksums",
        },
        "volumes": [
            "postgres:/var/lib/postgresql/data",
            "./postgres/init.sh:/docker-entrypoint-initdb.d/init.sh:ro",
        ],
        "tmpfs": ["/run/postgresql", "/tmp"],  # noqa: S108 - the container's own
        "secrets": names,
        "networks": ["data"],
        "healthcheck": {
            "test": ["CMD", "pg_isready", "--username", "postgres", "--dbname", "survey"],
            "interval": "5s",
            "timeout": "3s",
            "start_period": "30s",
        },
        "stop_grace_period": "60s",
        **hardened("512M"),
        # Its entry point gives the data to its own user before it becomes that user.
        "cap_add": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"],
    }


def _redis() -> Service:
    return {
        "image": "docker.io/library/redis:7-alpine",
        "command": ["redis-server", f"{_MOUNT}/redis.conf"],
        "volumes": ["redis:/data"],
        "secrets": ["redis.conf"],
        "networks": ["data"],
        "healthcheck": {
            # Without the password it answers NOAUTH, which is alive; no answer is not.
            "test": ["CMD", "redis-cli", "ping"],
            "interval": "5s",
            "timeout": "3s",
        },
        **hardened("256M"),
        "cap_add": ["CHOWN", "SETGID", "SETUID"],
    }


def _stand_in(name: str, command: list[str]) -> Service:
    return {
        **image(name),
        "profiles": ["sandbox"],
        "command": command,
        "environment": {"AMARRE_ENV": "development"},
        "volumes": [f"stand-ins:{STATE}"],
        "networks": ["outside"],
        **hardened("512M"),
    }


def _redcap() -> Service:
    port = topology.PORT_BASE + topology.REDCAP
    found = _stand_in(
        "redcap",
        [
            *("--listen", f"0.0.0.0:{port}", "--base-url", f"http://redcap:{port}"),
            *("--database", f"{STATE}/redcap.sqlite"),
            *("--token-file", f"{_MOUNT}/redcap-token"),
            *("--super-token-file", f"{_MOUNT}/redcap-super-token"),
        ],
    )
    found["secrets"] = ["redcap-token", "redcap-super-token"]
    return found


def _outbox() -> Service:
    http, smtp = (topology.PORT_BASE + n for n in (topology.OUTBOX, topology.SMTP))
    return _stand_in(
        "outbox",
        [
            *("--http", f"0.0.0.0:{http}", "--smtp", f"0.0.0.0:{smtp}"),
            *("--database", f"{STATE}/outbox.sqlite"),
        ],
    )
