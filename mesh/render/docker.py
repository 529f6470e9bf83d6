"""
The Dockerfile: one target per workload.

``make lock`` writes the two locks beside it: ``build.lock`` for the wheel and
``requirements.lock`` for the images.
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
"""Where stand-ins and the authority keep their files; a volume."""
LOCK = Path(__file__).resolve().parents[2] / "mesh/deploy/docker/requirements.lock"
"""What the images install."""

HEAD = """\
# One target per workload, rendered from mesh/topology.py by `amarre render docker`.
# Build: docker build -f mesh/deploy/docker/Dockerfile --target survey \\
#          --build-arg PYTHON_DIGEST=sha256:… --build-arg VERSION=… -t amarre-survey .
# The digest is stated by who builds; docker buildx imagetools inspect shows the present one.
ARG PYTHON_IMAGE=docker.io/library/python:3.14-slim-bookworm
ARG PYTHON_DIGEST

# Builds the wheel; code is generated from the contracts on the way.
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

# Installs what runs, and nothing that builds or tests.
FROM ${PYTHON_IMAGE}@${PYTHON_DIGEST} AS installed
WORKDIR /install
COPY mesh/deploy/docker/requirements.lock ./
RUN python -m venv /opt/amarre \\
 && /opt/amarre/bin/pip install --no-cache-dir --require-hashes --no-deps -r requirements.lock
COPY --from=wheel /build/dist/ dist/
RUN /opt/amarre/bin/pip install --no-cache-dir --no-deps --no-index dist/*.whl \\
 && /opt/amarre/bin/python -m compileall -q /opt/amarre/lib \\
 && rm -rf /opt/amarre/lib/python3*/site-packages/pip*

# What all workloads share: the interpreter, the packages, a user that owns its volumes alone.
FROM ${PYTHON_IMAGE}@${PYTHON_DIGEST} AS base
ARG VERSION=development
LABEL org.opencontainers.image.title="AMARRE mesh" \\
      org.opencontainers.image.licenses="MIT" \\
      org.opencontainers.image.version="${VERSION}"
ENV PATH=/opt/amarre/bin:/usr/local/bin:/usr/bin:/bin \\
    PYTHONDONTWRITEBYTECODE=1 \\
    PYTHONUNBUFFERED=1
COPY --from=installed /opt/amarre /opt/amarre
RUN install -d -o 65532 -g 65532 -m 0770 /var/lib/amarre /run/amarre
WORKDIR /
USER 65532:65532
STOPSIGNAL SIGTERM
"""

AUTHORITY = """
# Gives certificates to the proxies of Compose; istiod does so on Kubernetes.
FROM base AS authority
LABEL org.opencontainers.image.description="AMARRE certificates for Compose"
HEALTHCHECK NONE
ENTRYPOINT ["python", "-m", "mesh.deploy.authority"]
"""

IGNORED = """\
# Only what the wheel is built from.
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
protos/gen
**/__pycache__
"""


def render() -> dict[str, str]:
    """Return the Dockerfile and the list of what the build leaves out."""
    deployed = deployment.load(policy.load())
    stand_ins = [p for p in topology.PROCESSES if p.stage is Stage.OUTSIDE_PRODUCTION]
    targets = [_workload(w) for w in deployed.workloads] + [_stand_in(p) for p in stand_ins]
    targets.append(AUTHORITY)
    packages = sorted({"mesh"} | {p.module.partition(".")[0] for p in topology.PROCESSES})
    head = HEAD.replace("{packages}", "\n".join(f"COPY {name} {name}" for name in packages))
    return {
        "Dockerfile": head + "".join(targets),
        "Dockerfile.dockerignore": IGNORED,
    }


def _workload(workload: Workload) -> str:
    # Liveness: a dependency that is unavailable makes no container unhealthy.
    command = json.dumps([*probe_command(workload), "alive"])
    return f"""
FROM base AS {workload.name}
LABEL org.opencontainers.image.description="AMARRE {workload.name}"
HEALTHCHECK --interval=10s --timeout=15s --start-period=120s --retries=3 CMD {command}
ENTRYPOINT ["python", "-m", "{workload.process.module}"]
"""


def _stand_in(process: Process) -> str:
    address = f"127.0.0.1:{topology.PORT_BASE + process.port}"
    command = ["python", "-m", "mesh.chassis.probe", "http", address, process.probe_path, "alive"]
    return f"""
# Never in production.
FROM base AS {process.name}
LABEL org.opencontainers.image.description="{process.title} of AMARRE"
HEALTHCHECK --interval=10s --timeout=15s --start-period=120s --retries=3 CMD {json.dumps(command)}
ENTRYPOINT ["python", "-m", "{process.module}"]
"""


def version() -> str:
    """Return the version of this installation, which is the tag of its images."""
    return metadata.version(PACKAGE)
