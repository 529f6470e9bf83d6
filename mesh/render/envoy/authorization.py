"""
Authorization of calls: RBAC per method and user tokens, from the callers and session rules.

There are two RBAC filters. The first denies calls and names the policy with its line in the
contract, which appears in access logs and spans. The second allows only what the contracts
allow, so that a gap in the first does not grant access.
"""

from typing import Any

from mesh.contract.policy import ANY_CALLER, Method, Service
from mesh.render.deployment import HEALTH_SERVICE, OPERATOR, REFLECTION
from mesh.render.envoy.proxy import NAMESPACE, TRUST_DOMAIN, spiffe_id, typed

ISSUER = "https://auth.amarre.local"
KEYS = "keys"
"""The cluster of Auth's key set."""
TOKENS_CACHED = 4096
"""Verified user tokens that a proxy keeps, as many as a service: 3,000 sessions fit."""
_PREFIX = f"spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/"


def rbac(service: Service) -> list[dict[str, Any]]:
    """Return the filters that authorize the caller."""
    return [_filter("DENY", _refusals(service)), _filter("ALLOW", _permissions(service))]


def policy_name(method: Method) -> str:
    """Return the policy name that logs show when a caller is denied."""
    return f"{method.short_name} allows {', '.join(method.callers)} ({method.source})"


def _refusals(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for method in service.methods:
        if ANY_CALLER not in method.callers:
            found[policy_name(method)] = {
                "permissions": [_at(method)],
                "principals": [{"not_id": _callers(method)}],
            }
    found["only gRPC is accepted"] = {
        "permissions": [{"not_rule": _is_grpc()}],
        "principals": [{"any": True}],
    }
    return found


def _permissions(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for method in service.methods:
        found[method.short_name] = {
            "#": method.source,
            "permissions": [_at(method)],
            "principals": [_callers(method)],
        }
    found["health checks by any workload"] = {
        "permissions": [{"url_path": {"path": {"prefix": HEALTH_SERVICE}}}],
        "principals": [_any_workload()],
    }
    found["reflection by the operator"] = {
        "permissions": [{"url_path": {"path": {"prefix": prefix}}} for prefix in REFLECTION],
        "principals": [_is(OPERATOR)],
    }
    return found


def _callers(method: Method) -> dict[str, Any]:
    if ANY_CALLER in method.callers:
        return _any_workload()
    return {"or_ids": {"ids": [_is(caller) for caller in method.callers]}}


def _is(workload: str) -> dict[str, Any]:
    return {"authenticated": {"principal_name": {"exact": spiffe_id(workload)}}}


def _any_workload() -> dict[str, Any]:
    return {"authenticated": {"principal_name": {"prefix": _PREFIX}}}


def _at(method: Method) -> dict[str, Any]:
    return {"url_path": {"path": {"exact": method.path}}}


def _is_grpc() -> dict[str, Any]:
    return {"header": {"name": "content-type", "string_match": {"prefix": "application/grpc"}}}


def _filter(action: str, policies: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": f"envoy.filters.http.rbac.{action.lower()}",
        "typed_config": typed(
            "envoy.extensions.filters.http.rbac.v3.RBAC",
            rules={"action": action, "policies": policies},
            rules_stat_prefix=action.lower() + ".",
        ),
    }


def jwt(service: Service, *, cluster: str = KEYS, payload: str = "") -> list[dict[str, Any]]:
    """
    Return the filter that verifies user tokens; none if no method requires a user.

    The service verifies them again, more strictly: Envoy accepts headers that Auth never writes.

    Args:
        service: The callee.
        cluster: The cluster that serves the key set.
        payload: The metadata key of the claims for other filters; empty for none.
    """
    methods = [method for method in service.methods if method.needs_session]
    if not methods:
        return []
    provider = {
        "issuer": ISSUER,
        "audiences": [service.name],
        "require_expiration": True,
        "max_lifetime": "60s",
        "clock_skew_seconds": 5,
        "forward": True,
        "jwt_cache_config": {"jwt_cache_size": TOKENS_CACHED},
        "remote_jwks": {
            "http_uri": {
                "uri": "http://auth/.well-known/jwks.json",
                "cluster": cluster,
                "timeout": "1s",
            },
            "cache_duration": "30s",
            # A proxy that replaces another must have the keys before it listens. If Auth is not
            # serving, known keys stay in force and a failed fetch is repeated after a second: the
            # longest wait at a start, and few requests from all replicas together.
            "async_fetch": {"fast_listener": False, "failed_refetch_duration": "1s"},
        },
    }
    if payload:
        provider["payload_in_metadata"] = payload
    rules = [
        {"#": method.source, "match": {"path": method.path}, "requires": {"provider_name": "auth"}}
        for method in methods
    ]
    return [
        {
            "name": "envoy.filters.http.jwt_authn",
            "typed_config": typed(
                "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
                providers={"auth": provider},
                rules=rules,
            ),
        }
    ]
