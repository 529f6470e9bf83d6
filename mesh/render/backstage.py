"""
The Backstage catalog from contracts and topology: system, components, APIs, owners.

Definitions are references to the contracts, relative to the committed file, which Backstage
resolves: https://backstage.io/docs/features/software-catalog/descriptor-format
"""

from collections.abc import Iterator
from typing import Any

from mesh import topology
from mesh.contract import policy
from mesh.contract.policy import ANY_CALLER, Mesh, Service
from mesh.render.rules.alert import Team
from mesh.render.yaml_text import document
from mesh.topology import Kind, Process, Stage

SYSTEM = "amarre"
REST = "amarre-rest"
PROTOS = "../../../protos"
"""Relative path from the committed file to the contracts."""
OWNERS = {"auth": Team.IDENTITY, "survey": Team.SURVEYS}
"""Owners of workloads; all others belong to the mesh team."""
GATEWAY = "gateway"

Entity = dict[str, Any]


def render() -> dict[str, str]:
    """Return ``catalog-info.yaml``."""
    parts = (document(_title(entity), entity) for entity in _entities(policy.load()))
    return {"catalog-info.yaml": "---\n".join(parts)}


def _title(entity: Entity) -> str:
    name, kind = entity["metadata"]["name"], entity["kind"]
    return f"{kind} {name}, for Backstage. Rendered by `amarre render backstage`."


def _entities(mesh: Mesh) -> Iterator[Entity]:
    yield _entity("System", SYSTEM, "International mobility requests.", owner=_owner(""))
    for team in sorted({_owner(name) for name in ("", *OWNERS)}):
        yield _entity("Group", team, f"The {team} team.", type="team", children=[])
    for process in topology.PROCESSES:
        if process.stage is Stage.OUTSIDE_PRODUCTION:
            yield _resource(process)
    for service in mesh.services:
        yield _grpc_api(service)
    yield _entity(
        "API",
        REST,
        "The REST API of the gateway, transcoded from the contracts.",
        type="openapi",
        lifecycle="production",
        owner=_owner(GATEWAY),
        system=SYSTEM,
        definition={"$text": "./openapi.json"},
    )
    summaries = {service.name: service.summary for service in mesh.services}
    for process in topology.PROCESSES:
        if process.kind is Kind.SERVICE:
            yield _component(process, mesh, summaries.get(process.name, "The REST gateway."))


def _component(process: Process, mesh: Mesh, summary: str) -> Entity:
    name = process.name
    calls = {
        method.service
        for method in mesh
        if name in method.callers or (name == GATEWAY and ANY_CALLER in method.callers)
    }
    resources = {p.name for p in topology.PROCESSES if p.stage is Stage.OUTSIDE_PRODUCTION}
    return _entity(
        "Component",
        name,
        summary,
        type="service",
        lifecycle="production",
        owner=_owner(name),
        system=SYSTEM,
        providesApis=[REST if name == GATEWAY else _api(name)],
        consumesApis=[_api(callee) for callee in sorted(calls)],
        dependsOn=[
            *(f"component:{callee}" for callee in sorted(calls)),
            *(f"resource:{need}" for need in process.needs if need in resources),
        ],
    )


def _grpc_api(service: Service) -> Entity:
    file = service.descriptor.file.name
    return _entity(
        "API",
        _api(service.name),
        service.summary,
        type="grpc",
        lifecycle="production",
        owner=_owner(service.name),
        system=SYSTEM,
        definition={"$text": f"{PROTOS}/{file}"},
    )


def _resource(process: Process) -> Entity:
    what = {"redcap": "REDCap", "outbox": "The mail server"}.get(process.name, process.title)
    return _entity(
        "Resource",
        process.name,
        f"{what}, outside of the mesh.",
        type="external-service",
        owner=_owner(""),
        system=SYSTEM,
    )


def _entity(kind: str, name: str, description: str, **spec: Any) -> Entity:
    return {
        "apiVersion": "backstage.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "description": description},
        "spec": spec,
    }


def _api(service: str) -> str:
    return f"amarre-{service}"


def _owner(workload: str) -> str:
    return str(OWNERS.get(workload, Team.MESH))
