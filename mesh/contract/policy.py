"""
Reads the policies of all services and methods from the descriptors into the model.

Renderers, servers and the gateway use the model and never read options themselves.
"""

import functools
from collections.abc import Iterable, Iterator
from datetime import timedelta
from importlib import import_module

from amarre.mesh.v1 import policy_pb2 as pb
from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.duration_pb2 import Duration

from mesh.contract.faults import check
from mesh.contract.model import (
    ANY_CALLER,
    SERVICES,
    Idempotency,
    Mesh,
    Method,
    Objective,
    Outlier,
    Route,
    Service,
)
from mesh.contract.sources import comment, image, source

__all__ = [
    "ANY_CALLER",
    "SERVICES",
    "Idempotency",
    "Mesh",
    "Method",
    "Objective",
    "Outlier",
    "Route",
    "Service",
    "comment",
    "image",
    "load",
    "read",
    "source",
]


@functools.cache
def load() -> Mesh:
    """
    Read the contracts of this installation.

    Raises:
        PolicyError: A contract is contradictory; the message lists every error.
    """
    return read(
        import_module(f"amarre.{area}.v1.{area}_service_pb2").DESCRIPTOR for area in SERVICES
    )


def read(files: Iterable[FileDescriptor]) -> Mesh:
    """
    Read the services of *files*.

    Raises:
        PolicyError: A policy is contradictory; the message lists every error.
    """
    services = tuple(
        _service(service) for file in files for service in file.services_by_name.values()
    )
    mesh = Mesh(services)
    check(mesh)
    return mesh


def _service(descriptor: ServiceDescriptor) -> Service:
    policy = descriptor.GetOptions().Extensions[pb.service_policy]
    return Service(
        descriptor=descriptor,
        max_concurrent_requests=policy.max_concurrent_requests,
        max_pending_requests=policy.max_pending_requests,
        outlier=Outlier(
            consecutive_failures=policy.outlier.consecutive_failures,
            interval=_timedelta(policy.outlier.interval),
            base_ejection_time=_timedelta(policy.outlier.base_ejection_time),
            max_ejection_percent=policy.outlier.max_ejection_percent,
        ),
        methods=tuple(_method(method) for method in descriptor.methods),
        summary=comment(descriptor.full_name).split("\n\n")[0].replace("\n", " "),
    )


def _method(descriptor: MethodDescriptor) -> Method:
    options = descriptor.GetOptions()
    policy = options.Extensions[pb.policy]
    return Method(
        descriptor=descriptor,
        callers=tuple(policy.callers),
        deadline=_timedelta(policy.deadline),
        session=policy.session,
        sign_in_age=(_timedelta(policy.sign_in_age) if policy.HasField("sign_in_age") else None),
        session_effect=policy.session_effect,
        roles=tuple(policy.roles),
        objective=Objective(
            availability=policy.objective.availability,
            latency=_timedelta(policy.objective.latency),
            latency_share=policy.objective.latency_share or 0.95,
        ),
        idempotency=Idempotency(options.idempotency_level),
        routes=tuple(_routes(options.Extensions[annotations_pb2.http])),
        rest=policy.rest,
        source=source(descriptor.full_name),
    )


def _routes(rule: HttpRule) -> Iterator[Route]:
    verb = rule.WhichOneof("pattern")
    if verb:
        yield Route(verb.upper(), getattr(rule, verb), rule.body, rule.response_body)
    for other in rule.additional_bindings:
        yield from _routes(other)


def _timedelta(duration: Duration) -> timedelta:
    return timedelta(seconds=duration.seconds, microseconds=duration.nanos // 1000)
