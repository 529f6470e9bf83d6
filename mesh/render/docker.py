"""
The Dockerfile: one target per workload.

``make lock`` writes the lock files next to it: ``build.lock`` for the wheel, ``requirements.lock``
for the services and ``sandbox.lock`` for the sandbox.
"""

import json
from importlib import metadata
from pathlib import Path

from mesh import topology
from mesh.contract import policy
from mesh.render import deployment
from mesh.render.deployment import Workload
from mesh.render.environment import probe_command
from mesh.render.readers import WORKLOADS
from mesh.topology import Process, Stage

PACKAGE = "amarre-mesh"
USER = WORKLOADS.uid
STATE = "/var/lib/amarre"
"""Data folder of the sandbox and the authority; a volume."""
FOLDER = Path(__file__).resolve().parents[2] / "mesh/deploy/docker"
LOCKS = {"base": FOLDER / "requirements.lock", "sandbox": FOLDER / "sandbox.lock"}
"""The packages of each kind of image."""

HEAD = """\
# One target per workload, rendered from mesh/topology.py by `amarre render docker`.
# Build: docker build -f mesh/deploy/docker/Dockerfile --target survey \\
#          --build-arg PYTHON_DIGEST=sha256:… --build-arg VERSION=… -t amarre-survey .
# You choose the digest; docker buildx imagetools inspect shows the current one.
ARG PYTHON_IMAGE=docker.io/library/python:3.14-slim-bookworm
ARG PYTHON_DIGEST

# Builds the wheel, including code generated from the contracts.
FROM ${PYTHON_IMAGE}@${PYTHON_DIGEST} AS wheel
WORKDIR /build
COPY mesh/deploy/docker/build.lock ./
RUN python -m venv .venv \\
 && .venv/bin/pip install --no-cache-dir --require-hashes --no-deps -r build.lock
COPY pyproject.toml README.md LICENSE ./
COPY protos protos
COPY docs/runbooks docs/runbooks
{packages}
RUN .venv/bin/uv build --wheel --no-build-isolation --python .venv/bin/python -o dist

# Installs only runtime packages.
FROM ${PYTHON_IMAGE}@${PYTHON_DIGEST} AS installer
# Only strips symbols and is not part of the images, so its version does not matter.
# hadolint ignore=DL3008
RUN apt-get update \\
 && apt-get install --yes --no-install-recommends binutils \\
 && rm -rf /var/lib/apt/lists/*
COPY mesh/deploy/docker/install.sh /usr/local/bin/
WORKDIR /install

FROM installer AS installed
COPY mesh/deploy/docker/requirements.lock ./
RUN sh /usr/local/bin/install.sh --require-hashes -r requirements.lock
COPY --from=wheel /build/dist/ dist/
RUN sh /usr/local/bin/install.sh --no-index dist/*.whl

FROM installer AS installed-sandbox
COPY mesh/deploy/docker/sandbox.lock ./
RUN sh /usr/local/bin/install.sh --require-hashes -r sandbox.lock
COPY --from=wheel /build/dist/ dist/
RUN sh /usr/local/bin/install.sh --no-index dist/*.whl

# The base of all images: the interpreter and an unprivileged user that owns only its volumes.
FROM ${PYTHON_IMAGE}@${PYTHON_DIGEST} AS runtime
LABEL org.opencontainers.image.title="AMARRE mesh" \\
      org.opencontainers.image.licenses="MIT"
ENV PATH=/opt/amarre/bin:/usr/local/bin:/usr/bin:/bin \\
    PYTHONDONTWRITEBYTECODE=1 \\
    PYTHONUNBUFFERED=1
RUN install -d -o 65532 -g 65532 -m 0770 /var/lib/amarre /run/amarre
WORKDIR /
STOPSIGNAL SIGTERM
"""

# The official images have no bytecode, and the root file system is read-only at runtime.
SHARED = """
FROM runtime AS {kind}
COPY --from={installed} /opt/amarre /opt/amarre
# Compiles the imported modules; otherwise each start and each health check would.
RUN env -u PYTHONDONTWRITEBYTECODE python -c "import {modules}"
ARG VERSION=development
LABEL org.opencontainers.image.version="${{VERSION}}"
USER {user}:{user}
"""

IMPORTED_LATER = {
    "base": (
        "mesh.deploy.authority",
        "alembic.command",
        "redis.asyncio",
        "sqlalchemy.dialects.postgresql.asyncpg",
        "uvicorn.protocols.http.httptools_impl",
    ),
    "sandbox": ("uvicorn.protocols.http.httptools_impl",),
}
"""Modules that processes import by name, or after startup."""

AUTHORITY = """
# Issues certificates to the proxies of Compose; on Kubernetes, istiod does.
FROM base AS authority
LABEL org.opencontainers.image.description="AMARRE certificates for Compose"
HEALTHCHECK NONE
ENTRYPOINT ["python", "-m", "mesh.deploy.authority"]
"""

IGNORED = """\
# Only the sources of the images' wheel, without runner, console, renderers and configuration of
# other programs.
*
!pyproject.toml
!README.md
!LICENSE
!docs/runbooks
!protos
!mesh
!sandbox
!gateway
!*_svc
mesh/console
mesh/deploy/*
!mesh/deploy/__init__.py
!mesh/deploy/authority.py
!mesh/deploy/docker
mesh/envoy
mesh/istio
mesh/observability
mesh/render
protos/gen
**/__pycache__
"""


def render() -> dict[str, str]:
    """Return the Dockerfile and its ignore file."""
    deployed = deployment.load(policy.load())
    sandboxes = [p for p in topology.PROCESSES if p.stage is Stage.OUTSIDE_PRODUCTION]
    targets = [_workload(w) for w in deployed.workloads] + [_sandbox(p) for p in sandboxes]
    targets.append(AUTHORITY)
    packages = sorted({"mesh"} | {p.module.partition(".")[0] for p in topology.PROCESSES})
    head = HEAD.replace("{packages}", "\n".join(f"COPY {name} {name}" for name in packages))
    shared = _shared("base", "installed", [w.process for w in deployed.workloads]) + _shared(
        "sandbox", "installed-sandbox", sandboxes
    )
    return {
        "Dockerfile": head + shared + "".join(targets),
        "Dockerfile.dockerignore": IGNORED,
    }


def _shared(kind: str, installed: str, processes: list[Process]) -> str:
    programs = [f"{process.module}.__main__" for process in processes]
    modules = ", ".join([*programs, "mesh.chassis.probe", *IMPORTED_LATER[kind]])
    return SHARED.format(kind=kind, installed=installed, modules=modules, user=USER)


def _workload(workload: Workload) -> str:
    # Liveness: an unavailable dependency does not make a container unhealthy.
    command = json.dumps([*probe_command(workload), "alive"])
    return f"""
FROM base AS {workload.name}
LABEL org.opencontainers.image.description="AMARRE {workload.name}"
HEALTHCHECK --interval=10s --timeout=15s --start-period=120s --retries=3 CMD {command}
ENTRYPOINT ["python", "-m", "{workload.process.module}"]
"""


def _sandbox(process: Process) -> str:
    address = f"127.0.0.1:{topology.PORT_BASE + process.port}"
    command = ["python", "-m", "mesh.chassis.probe", "http", address, process.probe_path, "alive"]
    return f"""
# Never in production.
FROM sandbox AS {process.name}
LABEL org.opencontainers.image.description="{process.title} of AMARRE"
HEALTHCHECK --interval=10s --timeout=15s --start-period=120s --retries=3 CMD {json.dumps(command)}
ENTRYPOINT ["python", "-m", "{process.module}"]
"""


def version() -> str:
    """Return the version of this installation, which is the image tag."""
    return metadata.version(PACKAGE)
