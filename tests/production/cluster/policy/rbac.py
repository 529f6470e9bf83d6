"""Evaluates the filters of an inbound listener: first the user token, then the caller."""

import re
from dataclasses import dataclass, field
from typing import Any

from tests.production.cluster.policy.xds import find

Token = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """A call as it reaches the proxy of the callee."""

    path: str
    port: int
    caller: str
    """The caller's SPIFFE id."""
    token: Token | None = None
    headers: dict[str, str] = field(default_factory=dict)
    """In addition to ``:method`` and ``content-type`` of a gRPC call."""


def allowed(chain: Any, call: Call) -> bool:
    """Return whether the filters of *chain* permit *call*."""
    claims: Token = {}
    for filters in find(chain, "http_filters"):
        for one in filters:
            config = one.get("typed_config", {})
            if one["name"] == "envoy.filters.http.jwt_authn":
                verified = _verified(config, call)
                if verified is None:
                    return False
                claims = verified
            if one["name"] == "envoy.filters.http.rbac":
                rules = config.get("rules")
                if rules is None:
                    return False
                hit = any(
                    any(_permits(p, call) for p in policy["permissions"])
                    and any(_is(p, call, claims) for p in policy["principals"])
                    for policy in rules.get("policies", {}).values()
                )
                if hit != (rules.get("action", "ALLOW") == "ALLOW"):
                    return False
    return True


def _verified(config: Any, call: Call) -> Token | None:
    """Return the claims for later filters; None if the call is rejected."""
    for rule in config.get("rules", []):
        if not _fits(rule["match"], call.path):
            continue
        requires = rule["requires"]
        optional = "allow_missing" in str(requires)
        if call.token is None:
            return {} if optional else None
        names = list(find(requires, "provider_name"))
        for provider in (config["providers"][name] for name in names):
            if (
                call.token["iss"] == provider["issuer"]
                and call.token["aud"] in provider["audiences"]
            ):
                return {provider["payload_in_metadata"]: call.token}
        return None
    return {}


def _fits(match: Any, value: str) -> bool:
    if match is None:
        return True
    if "safe_regex" in match:
        return re.fullmatch(match["safe_regex"]["regex"], value) is not None
    for kind, test in (("exact", str.__eq__), ("path", str.__eq__), ("prefix", str.startswith)):
        if kind in match:
            return bool(test(value, match[kind]))
    return value.endswith(match["suffix"])


def _header(matcher: Any, call: Call) -> bool:
    standard = {":method": "POST", "content-type": "application/grpc"}
    return _fits(matcher["string_match"], (standard | call.headers).get(matcher["name"], ""))


def _permits(rule: Any, call: Call) -> bool:
    ((kind, value),) = rule.items()
    if kind in {"and_rules", "or_rules"}:
        return (all if kind == "and_rules" else any)(_permits(r, call) for r in value["rules"])
    if kind == "not_rule":
        return not _permits(value, call)
    if kind == "header":
        return _header(value, call)
    if kind == "url_path":
        return _fits(value["path"], call.path)
    if kind == "destination_port":
        return bool(value == call.port)
    if kind == "any":
        return bool(value)
    raise KeyError(kind)


def _is(identity: Any, call: Call, claims: Token) -> bool:
    ((kind, value),) = identity.items()
    if kind in {"and_ids", "or_ids"}:
        return (all if kind == "and_ids" else any)(_is(i, call, claims) for i in value["ids"])
    if kind == "not_id":
        return not _is(value, call, claims)
    if kind == "authenticated":
        return _fits(value.get("principal_name"), call.caller)
    if kind == "header":
        return _header(value, call)
    if kind == "metadata":
        return _metadata(value, claims)
    if kind == "any":
        return bool(value)
    raise KeyError(kind)


def _metadata(matcher: Any, claims: Any) -> bool:
    for step in matcher["path"]:
        if not isinstance(claims, dict) or step["key"] not in claims:
            return False
        claims = claims[step["key"]]
    return _value(matcher["value"], claims)


def _value(matcher: Any, value: Any) -> bool:
    if "or_match" in matcher:
        return any(_value(one, value) for one in matcher["or_match"]["value_matchers"])
    if "list_match" in matcher:
        one = matcher["list_match"]["one_of"]
        return isinstance(value, list) and any(_value(one, item) for item in value)
    return isinstance(value, str) and _fits(matcher["string_match"], value)
