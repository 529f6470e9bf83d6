"""
Validation of policies; each error has a number, explained in ``docs/reference/policy.md``.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from amarre.mesh.v1 import policy_pb2 as pb
from buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor

from mesh.contract import reasons
from mesh.contract.model import (
    ANY_CALLER,
    CLIENTS,
    LONGEST_CALL,
    SERVICES,
    Idempotency,
    Mesh,
    Method,
    Service,
)

WORKLOADS = frozenset({"gateway", "operator", *SERVICES, *CLIENTS})
"""The service accounts of the mesh; a caller must be one of them."""


@dataclass(frozen=True)
class Fault:
    """One error: its number, the element and a message."""

    number: str
    element: str
    message: str

    def __str__(self) -> str:
        return f"{self.number} {self.element}: {self.message}"


class PolicyError(Exception):
    """The contracts are contradictory; the message lists every error."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


def check(mesh: Mesh) -> None:
    """Raise PolicyError if *mesh* has errors."""
    faults = [fault for method in mesh for fault in _method_faults(method)]
    faults += [fault for service in mesh.services for fault in _service_faults(service)]
    if faults:
        raise PolicyError(faults)


Rule = tuple[str, Callable[[Method], bool], Callable[[Method], str]]

_METHOD_RULES: tuple[Rule, ...] = (
    (
        "AM001",
        lambda m: not m.descriptor.GetOptions().HasExtension(pb.policy),
        lambda m: "has no (amarre.mesh.v1.policy); set callers, deadline, session and objective",
    ),
    (
        "AM002",
        lambda m: not set(m.callers) <= WORKLOADS | {ANY_CALLER} or not m.callers,
        lambda m: f"policy.callers {list(m.callers)} must name some of {sorted(WORKLOADS)} or '*'",
    ),
    (
        "AM003",
        lambda m: m.deadline <= timedelta(0),
        lambda m: "policy.deadline must be set and above 0",
    ),
    (
        "AM004",
        lambda m: m.stays_open and not m.streams,
        lambda m: f"policy.deadline {m.deadline} is above the gateway's {LONGEST_CALL}",
    ),
    (
        "AM005",
        lambda m: _policy(m).session == pb.SESSION_RULE_UNSPECIFIED,
        lambda m: "policy.session must be set to a SESSION_RULE",
    ),
    (
        "AM006",
        lambda m: m.needs_session and not m.routes,
        lambda m: "policy.session requires a user, but the method has no google.api.http route",
    ),
    (
        "AM007",
        lambda m: bool(m.routes) and not m.allows("gateway"),
        lambda m: "has a google.api.http route, but policy.callers does not include the gateway",
    ),
    (
        "AM008",
        lambda m: not 0.5 <= m.objective.availability <= 0.99999,
        lambda m: (
            f"policy.objective.availability {m.objective.availability} is not in 0.5..0.99999"
        ),
    ),
    (
        "AM009",
        lambda m: bool(m.deadline) and not timedelta(0) < m.objective.latency <= m.deadline,
        lambda m: "policy.objective.latency must be above 0 and at most the deadline",
    ),
    (
        "AM010",
        lambda m: (
            any(r.verb == "GET" for r in m.routes)
            and m.idempotency is not Idempotency.NO_SIDE_EFFECTS
        ),
        lambda m: "is routed by GET, so its idempotency_level must be NO_SIDE_EFFECTS",
    ),
    (
        "AM011",
        lambda m: bool(m.roles) and not m.needs_session,
        lambda m: "policy.roles requires a session",
    ),
    (
        "AM012",
        lambda m: bool(_unknown_reasons(m)),
        lambda m: f"names reasons that no error enum has: {', '.join(_unknown_reasons(m))}",
    ),
    (
        "AM013",
        lambda m: (
            m.idempotency is Idempotency.UNKNOWN
            and any(r.verb in {"PUT", "DELETE"} for r in m.routes)
        ),
        lambda m: "is routed by PUT or DELETE, which clients retry; set an idempotency_level",
    ),
    (
        "AM014",
        lambda m: (
            m.session_effect == pb.SESSION_EFFECT_OPEN
            and "session_secret" not in m.descriptor.output_type.fields_by_name
        ),
        lambda m: "policy.session_effect OPEN requires a response field session_secret",
    ),
    (
        "AM015",
        lambda m: m.session_effect == pb.SESSION_EFFECT_REVOKE and not m.needs_session,
        lambda m: "policy.session_effect REVOKE requires a session",
    ),
    (
        "AM016",
        lambda m: (
            m.sign_in_age is not None and not (m.needs_session and m.sign_in_age > timedelta(0))
        ),
        lambda m: "policy.sign_in_age must be above 0 and requires a session",
    ),
    (
        "AM017",
        lambda m: bool(_unexplained(m.descriptor.input_type)),
        lambda m: (
            "has fields with a pattern but no (amarre.mesh.v1.accepts): "
            + ", ".join(_unexplained(m.descriptor.input_type))
        ),
    ),
)


def _method_faults(method: Method) -> Iterator[Fault]:
    for number, broken, message in _METHOD_RULES:
        if broken(method):
            yield Fault(number, method.descriptor.full_name, message(method))
            if number == "AM001":
                return  # Further errors would only repeat that the policy is missing.


def _service_faults(service: Service) -> Iterator[Fault]:
    if not (service.max_concurrent_requests and service.max_pending_requests):
        yield Fault("AM020", service.full_name, "service_policy must set both request limits")
    outlier = service.outlier
    if not (outlier.consecutive_failures and outlier.interval and outlier.base_ejection_time):
        yield Fault("AM021", service.full_name, "service_policy.outlier must be set")
    elif not 1 <= outlier.max_ejection_percent <= 100:
        yield Fault("AM022", service.full_name, "outlier.max_ejection_percent is not in 1..100")


def _policy(method: Method) -> pb.MethodPolicy:
    policy: pb.MethodPolicy = method.descriptor.GetOptions().Extensions[pb.policy]
    return policy


def _unexplained(message: Descriptor, *within: str) -> list[str]:
    """Return the fields of a request whose pattern has no words for people."""
    found = []
    for field in message.fields:
        options, nested = field.GetOptions(), field.message_type
        rules = options.Extensions[validate_pb2.field]
        if rules.string.pattern or rules.repeated.items.string.pattern:
            found += [] if options.Extensions[pb.accepts] else [field.full_name]
        if nested and nested.full_name not in within:
            found += _unexplained(nested, message.full_name, *within)
    return found


def _unknown_reasons(method: Method) -> list[str]:
    fields = method.descriptor.input_type.fields
    named = [field.GetOptions().Extensions[pb.violation] for field in fields]
    named += [method.rest.wrong_content_type, method.rest.invalid_body]
    return [name for name in named if name and reasons.find(method.service, name) is None]
