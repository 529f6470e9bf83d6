"""The policy model: services and methods with their policies. Immutable."""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

from amarre.mesh.v1 import policy_pb2 as pb
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from mesh.contract.sources import areas

LONGEST_CALL = timedelta(seconds=60)
"""The gateway's limit for a call; only long-lived streams may take longer."""
ANY_CALLER = "*"
SERVICES = areas("{area}_service_pb2.py")
"""The areas with a service: ``auth`` for ``amarre.auth.v1.AuthService``."""

CLIENTS: frozenset[str] = frozenset()
"""The service accounts of other teams' programs, which a contract may name as callers."""


class Idempotency(Enum):
    """The ``idempotency_level`` of a method."""

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
    """The objective of a method."""

    availability: float
    latency: timedelta
    latency_share: float


@dataclass(frozen=True)
class Outlier:
    """When a replica is ejected from load balancing, and for how long."""

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
    session: "pb.SessionRule.ValueType"
    sign_in_age: timedelta | None
    """The maximum time since the user signed in; None for no limit."""
    session_effect: "pb.SessionEffect.ValueType"
    roles: tuple[str, ...]
    objective: Objective
    idempotency: Idempotency
    routes: tuple[Route, ...]
    rest: pb.RestPolicy
    source: str
    """Location of the policy, for messages: ``amarre/survey/v1/survey_service.proto:41``."""

    @functools.cached_property
    def name(self) -> str:
        """The name of the rpc, ``ListRequests``."""
        return self.descriptor.name

    @functools.cached_property
    def service(self) -> str:
        """The short name of the service, ``survey``."""
        return _area(self.descriptor.containing_service.full_name)

    @functools.cached_property
    def short_name(self) -> str:
        """The short name, as used on the command line: ``survey.ListRequests``."""
        return f"{self.service}.{self.name}"

    @functools.cached_property
    def path(self) -> str:
        """The gRPC path, ``/amarre.survey.v1.SurveyService/ListRequests``."""
        return f"/{self.descriptor.containing_service.full_name}/{self.name}"

    @functools.cached_property
    def may_retry(self) -> bool:
        """Whether a retry is safe; true only if the contract says so."""
        return self.idempotency is not Idempotency.UNKNOWN and not self.streams

    @functools.cached_property
    def may_reopen(self) -> bool:
        """Whether a long-lived stream may be opened again while it has no response yet."""
        return self.idempotency is not Idempotency.UNKNOWN and self.stays_open

    @functools.cached_property
    def streams(self) -> bool:
        """Whether the response is a stream."""
        return bool(self.descriptor.server_streaming)

    @functools.cached_property
    def stays_open(self) -> bool:
        """Whether it is a long-lived stream, which has no natural end."""
        return self.deadline > LONGEST_CALL

    @functools.cached_property
    def deadline_seconds(self) -> float:
        """The deadline of a call, in seconds."""
        return self.deadline.total_seconds()

    @functools.cached_property
    def needs_session(self) -> bool:
        """Whether the call requires a signed-in user."""
        return self.session in {pb.SESSION_RULE_REQUIRED, pb.SESSION_RULE_FIRST_FACTOR}

    @functools.cached_property
    def needs_all_factors(self) -> bool:
        """Whether a required second factor must have been presented."""
        return self.session == pb.SESSION_RULE_REQUIRED

    def allows(self, caller: str) -> bool:
        """Return whether the workload *caller*, a service account name, may call the method."""
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
        """Return the service with the short *name*; KeyError if there is none."""
        return {service.name: service for service in self.services}[name]

    def method(self, short_name: str) -> Method:
        """Return the method with the short name ``survey.ListRequests``; KeyError if unknown."""
        return {method.short_name: method for method in self}[short_name]

    def edges(self) -> frozenset[tuple[str, str]]:
        """Return every declared edge as (caller, service); ``*`` is not expanded."""
        return frozenset((caller, method.service) for method in self for caller in method.callers)


def _area(full_name: str) -> str:
    """``amarre.survey.v1.SurveyService`` belongs to ``survey``."""
    return full_name.split(".")[1]
