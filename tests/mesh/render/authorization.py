"""
An evaluator of Istio's AuthorizationPolicy, for the features that we render.

Written from Istio's reference, not from our renderer, so that the two can disagree.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Policy = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """One request as seen by a server's proxy."""

    namespace: str
    app: str
    path: str
    port: int
    principal: str = ""
    request_principal: str = ""
    audience: str = ""
    labels: tuple[str, ...] = ()
    method: str = "POST"
    content_type: str = "application/grpc"


def allowed(policies: Iterable[Policy], request: Request) -> bool:
    """Return whether *request* is permitted: if any policies apply, one must allow it."""
    applying = [p for p in policies if _applies(p, request)]
    assert all(p["spec"]["action"] == "ALLOW" for p in applying)
    if not applying:
        return True
    rules = [rule for p in applying for rule in p["spec"].get("rules", [])]
    return any(_matches(rule, request) for rule in rules)


def _applies(policy: Policy, request: Request) -> bool:
    labels = policy["spec"].get("selector", {}).get("matchLabels", {})
    return policy["metadata"]["namespace"] == request.namespace and all(
        {"app": request.app}.get(key) == value for key, value in labels.items()
    )


def _matches(rule: dict[str, Any], request: Request) -> bool:
    assert set(rule) <= {"from", "to", "when"}
    return (
        ("from" not in rule or any(_source(f["source"], request) for f in rule["from"]))
        and ("to" not in rule or any(_operation(t["operation"], request) for t in rule["to"]))
        and all(_condition(c, request) for c in rule.get("when", []))
    )


def _source(source: dict[str, Any], request: Request) -> bool:
    assert set(source) <= {"principals", "requestPrincipals"}
    return _any(source.get("principals"), request.principal) and _any(
        source.get("requestPrincipals"), request.request_principal
    )


def _operation(operation: dict[str, Any], request: Request) -> bool:
    assert set(operation) <= {"methods", "ports", "paths"}
    return (
        _any(operation.get("methods"), request.method)
        and _any(operation.get("ports"), str(request.port))
        and _any(operation.get("paths"), request.path)
    )


def _condition(condition: dict[str, Any], request: Request) -> bool:
    values = {
        "request.headers[content-type]": (request.content_type,),
        "request.auth.audiences": (request.audience,),
        "request.auth.claims[labels]": request.labels,
    }
    return any(_any(condition["values"], value) for value in values[condition["key"]])


def _any(patterns: list[str] | None, value: str) -> bool:
    """
    Return whether one of *patterns* matches; ``x*`` is a prefix, no patterns match everything.
    """
    if patterns is None:
        return True
    return any(
        value.startswith(p[:-1]) and value != "" if p.endswith("*") else value == p
        for p in patterns
    )
