"""
Who may call what: RBAC per method and the user's token, from callers and session rule.

Two RBAC filters stand in a row. The first denies and names the policy and its line in the
contract, which access logs and spans then tell; the second lets through what the contracts
allow and nothing else, so that a hole in the first opens no door.
"""

from typing import Any

from mesh.contract.policy import ANY_CALLER, Method, Service
from mesh.render.deployment import HEALTH_SERVICE, OPERATOR, REFLECTION
from mesh.render.envoy.placement import NAMESPACE, TRUST_DOMAIN, spiffe_id, typed

ISSUER = "https://auth.amarre.local"
KEYS = "keys"
"""The cluster of Auth's key set."""
_PREFIX = f"spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/"


def rbac(service: Service) -> list[dict[str, Any]]:
    """Return the filters that decide on the caller."""
    return [_filter("DENY", _refusals(service)), _filter("ALLOW", _permissions(service))]


def policy_name(method: Method) -> str:
    """Return what logs say when a caller is refused."""
    return f"{method.short_name} allows {', '.join(method.callers)} ({method.source})"


def _refusals(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for method in service.methods:
        if ANY_CALLER not in method.callers:
            found[policy_name(method)] = {
                "permissions": [_at(method)],
                "principals": [{"not_id": _callers(method)}],
            }
    found["only gRPC is spoken here"] = {
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
    found["health for any workload"] = {
        "permissions": [{"url_path": {"path": {"prefix": HEALTH_SERVICE}}}],
        "principals": [_any_workload()],
    }
    found["reflection for the operator"] = {
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
    Return the filter that checks user tokens; none where no method needs a user.

    The service checks them again, more strictly: Envoy accepts headers that Auth never writes.

    Args:
        service: The callee.
        cluster: Where the key set is fetched.
        payload: The key under which other filters find the claims; empty for none.
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
        "jwt_cache_config": {"jwt_cache_size": 1000},
        "remote_jwks": {
            "http_uri": {
                "uri": "http://auth/.well-known/jwks.json",
                "cluster": cluster,
                "timeout": "1s",
            },
            "cache_duration": "30s",
            # A proxy that takes over from another one must know the keys before it listens; where
            # Auth does not serve yet the first attempt fails at once and is repeated.
            "async_fetch": {"fast_listener": False, "failed_refetch_duration": "0.200s"},
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
