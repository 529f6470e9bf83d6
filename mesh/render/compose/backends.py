"""The workloads' backends: PostgreSQL, Redis, and the sandbox for testing."""

from typing import Any

from mesh import topology
from mesh.render.compose.workloads import hardened, image
from mesh.render.docker import STATE
from mesh.render.readers import READERS

Service = dict[str, Any]
SECRETS = (*READERS["postgres"].secrets, *READERS["redis"].secrets, "redcap-super-token")
_MOUNT = "/run/secrets"


def services() -> dict[str, Service]:
    """Return the services."""
    return {"postgres": _postgres(), "redis": _redis(), "redcap": _redcap(), "outbox": _outbox()}


def volumes() -> dict[str, Any]:
    """Return the volumes, which are backed up."""
    return {"postgres": {}, "redis": {}, "stand-ins": {}}


def files() -> dict[str, str]:
    """Return the script that PostgreSQL runs for a new volume."""
    return {"postgres/init.sh": INIT}


INIT = """\
#!/usr/bin/env bash
# Creates a role and a database for each service that stores data, when the volume is new.
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
    reader = READERS["postgres"]
    # Over TCP with the password: the server of the first start has only a socket.
    connects = (
        f"PGPASSWORD=$$(cat {_MOUNT}/postgres-survey-password)"
        " psql --host 127.0.0.1 --username survey --dbname survey --command 'select 1'"
    )
    return {
        "image": reader.image,
        "user": reader.user,
        "environment": {
            "POSTGRES_USER": "postgres",
            "POSTGRES_PASSWORD_FILE": f"{_MOUNT}/postgres-password",
            "POSTGRES_INITDB_ARGS": "--auth-host=scram-sha-256 --data-checksums",
        },
        "volumes": [
            f"postgres:{reader.data}",
            "./postgres/init.sh:/docker-entrypoint-initdb.d/init.sh:ro",
        ],
        "tmpfs": [f"/run/postgresql:uid={reader.uid},gid={reader.gid},mode=0775", "/tmp"],  # noqa: S108 - the container's own
        "secrets": list(reader.secrets),
        "networks": ["data"],
        "healthcheck": {
            "test": ["CMD-SHELL", connects],
            "interval": "5s",
            "timeout": "15s",
            "start_period": "120s",
        },
        "stop_grace_period": "60s",
        **hardened("512M"),
    }


def _redis() -> Service:
    reader = READERS["redis"]
    return {
        "image": reader.image,
        "user": reader.user,
        "command": ["redis-server", f"{_MOUNT}/redis.conf"],
        "volumes": [f"redis:{reader.data}"],
        "secrets": list(reader.secrets),
        "networks": ["data"],
        "healthcheck": {
            # Without the password it returns NOAUTH, which proves that it is alive.
            "test": ["CMD", "redis-cli", "ping"],
            "interval": "5s",
            "timeout": "15s",
        },
        **hardened("256M"),
    }


def _stand_in(name: str, command: list[str], *published: int) -> Service:
    return {
        **image(name),
        "profiles": ["sandbox"],
        "command": command,
        "environment": {"AMARRE_ENV": "development"},
        "volumes": [f"stand-ins:{STATE}"],
        "networks": ["outside"],
        "ports": [f"127.0.0.1:{port}:{port}" for port in published],
        **hardened("512M"),
    }


def _redcap() -> Service:
    port = topology.PORT_BASE + topology.REDCAP
    found = _stand_in(
        "redcap",
        [
            # Browsers open survey links, so they contain the published address.
            *("--listen", f"0.0.0.0:{port}", "--base-url", f"http://localhost:{port}"),
            *("--database", f"{STATE}/redcap.sqlite"),
            *("--token-file", f"{_MOUNT}/redcap-token"),
            *("--super-token-file", f"{_MOUNT}/redcap-super-token"),
        ],
        port,
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
        http,
    )
