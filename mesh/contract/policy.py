"""
The policy model: every service and method of the contracts, read once from the descriptors.

Renderers, servers and the gateway work from this model and never look at an option themselves.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from importlib import import_module, resources

from amarre.mesh.v1 import policy_pb2 as pb
from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.duration_pb2 import Duration

ANY_CALLER = "*"
SERVICES = ("auth", "survey", "health")
"""The areas whose contracts make up the mesh, in start order of their ports."""


class Idempotency(Enum):
    """What ``idempotency_level`` says of a method."""

    UNKNOWN = 0
    NO_SIDE_EFFECTS = 1
    IDEMPOTENT = 2


@dataclass(frozen=True)
class Route:
    """One REST route of a method, from ``google.api.http``."""

    verb: str
    path: str
    body: str
    response_body: str


@dataclass(frozen=True)
class Objective:
    """What a method promises."""

    availability: float
    latency: timedelta
    latency_share: float


@dataclass(frozen=True)
class Outlier:
    """When a replica is left out of load balancing, and for how long."""

    consecutive_failures: int
    interval: timedelta
    base_ejection_time: timedelta
    max_ejection_percent: int


@dataclass(frozen=True)
class Method:
    """One rpc and its policy."""

    descriptor: MethodDescriptor
    callers: tuple[str, ...]
    deadline: timedelta
    needs_session: bool
    session_effect: "pb.SessionEffect.ValueType"
    roles: tuple[str, ...]
    objective: Objective
    idempotency: Idempotency
    routes: tuple[Route, ...]
    rest: pb.RestPolicy
    source: str
    """Where the policy stands, for people: ``amarre/survey/v1/survey_service.proto:41``."""

    @property
    def name(self) -> str:
        """The rpc's own name, ``ListRequests``."""
        return self.descriptor.name

    @property
    def service(self) -> str:
        """The short name of the service, ``survey``."""
        return _area(self.descriptor.containing_service.full_name)

    @property
    def short_name(self) -> str:
        """What people say and the command line takes: ``survey.ListRequests``."""
        return f"{self.service}.{self.name}"

    @property
    def path(self) -> str:
        """The gRPC path, ``/amarre.survey.v1.SurveyService/ListRequests``."""
        return f"/{self.descriptor.containing_service.full_name}/{self.name}"

    @property
    def may_retry(self) -> bool:
        """Whether a second attempt is harmless; true only where the contract says so."""
        return self.idempotency is not Idempotency.UNKNOWN and not self.streams

    @property
    def streams(self) -> bool:
        """Whether the answer is a stream."""
        return bool(self.descriptor.server_streaming)

    def allows(self, caller: str) -> bool:
        """Say whether the workload *caller*, a service account name, may call."""
        return caller in self.callers or ANY_CALLER in self.callers


@dataclass(frozen=True)
class Service:
    """One service, its limits and its methods in the order of the contract."""

    descriptor: ServiceDescriptor
    max_concurrent_requests: int
    max_pending_requests: int
    outlier: Outlier
    methods: tuple[Method, ...]
    summary: str

    @property
    def name(self) -> str:
        """The short name, ``survey``."""
        return _area(self.descriptor.full_name)

    @property
    def full_name(self) -> str:
        """The gRPC name, ``amarre.survey.v1.SurveyService``."""
        return self.descriptor.full_name


@dataclass(frozen=True)
class Mesh:
    """All services of the mesh."""

    services: tuple[Service, ...]

    def __iter__(self) -> Iterator[Method]:
        return (method for service in self.services for method in service.methods)

    @functools.cached_property
    def by_path(self) -> Mapping[str, Method]:
        """Every method by its gRPC path."""
        return {method.path: method for method in self}

    def service(self, name: str) -> Service:
        """Return the service with the short *name*; KeyError when there is none."""
        return {service.name: service for service in self.services}[name]

    def method(self, short_name: str) -> Method:
        """Return the method called ``survey.ListRequests``; KeyError when there is none."""
        return {method.short_name: method for method in self}[short_name]

    def edges(self) -> frozenset[tuple[str, str]]:
        """Return every declared edge as (caller, service), ``*`` included as it stands."""
        return frozenset((caller, method.service) for method in self for caller in method.callers)


@functools.cache
def load() -> Mesh:
    """
    Read the contracts of this installation.

    Raises:
        PolicyError: A contract contradicts itself; every fault is named.
    """
    return read(
        import_module(f"amarre.{area}.v1.{area}_service_pb2").DESCRIPTOR for area in SERVICES
    )


def read(files: Iterable[FileDescriptor]) -> Mesh:
    """
    Read the services of *files*.

    Raises:
        PolicyError: A service or method contradicts itself; every fault is named.
    """
    from mesh.contract.faults import check  # the faults look at the model that is made here

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
        needs_session=policy.session == pb.SESSION_RULE_REQUIRED,
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


def _area(full_name: str) -> str:
    """``amarre.survey.v1.SurveyService`` belongs to ``survey``."""
    return full_name.split(".")[1]


@functools.cache
def image() -> descriptor_pb2.FileDescriptorSet:
    """Return every contract with its comments, as the compiler saw it."""
    data = resources.files("amarre").joinpath("contract.binpb").read_bytes()
    return descriptor_pb2.FileDescriptorSet.FromString(data)


def comment(full_name: str) -> str:
    """Return the comment above an element of the contracts; empty when it has none."""
    return _locations().get(full_name, ("", ""))[0]


def source(full_name: str) -> str:
    """Return where an element stands, ``file.proto:LINE``; the name itself when unknown."""
    return _locations().get(full_name, ("", full_name))[1]


@functools.cache
def _locations() -> Mapping[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for file in image().file:
        names = dict(_named_paths(file))
        for location in file.source_code_info.location:
            name = names.get(tuple(location.path))
            if name:
                text = "\n".join(
                    line.removeprefix(" ")
                    for line in location.leading_comments.rstrip().split("\n")
                )
                found[name] = (text, f"{file.name}:{location.span[0] + 1}")
    return found


def _named_paths(
    file: descriptor_pb2.FileDescriptorProto,
) -> Iterator[tuple[tuple[int, ...], str]]:
    """Yield the path of each element in the source info beside its full name."""
    for s, service in enumerate(file.service):
        yield (6, s), f"{file.package}.{service.name}"
        for m, method in enumerate(service.method):
            yield (6, s, 2, m), f"{file.package}.{service.name}.{method.name}"
    for e, enum in enumerate(file.enum_type):
        yield (5, e), f"{file.package}.{enum.name}"
        for v, value in enumerate(enum.value):
            yield (5, e, 2, v), f"{file.package}.{enum.name}.{value.name}"
    for i, message in enumerate(file.message_type):
        yield from _message_paths((4, i), f"{file.package}.{message.name}", message)


def _message_paths(
    path: tuple[int, ...], name: str, message: descriptor_pb2.DescriptorProto
) -> Iterator[tuple[tuple[int, ...], str]]:
    yield path, name
    for f, field in enumerate(message.field):
        yield (*path, 2, f), f"{name}.{field.name}"
    for n, nested in enumerate(message.nested_type):
        yield from _message_paths((*path, 3, n), f"{name}.{nested.name}", nested)
