"""
The gRPC service config of a service: each method's timeout, and retries if the contract permits.

Only channels of the direct transport and external clients use it; with sidecars, the caller's proxy
retries. Long-lived streams are retried by our channel on either transport, until their first
response: while a service is replaced, an attempt to open one may fail.
"""

import json
from datetime import timedelta
from typing import Any

from mesh.contract.policy import Method, Service

MOST_ATTEMPTS = 3
STREAM_ATTEMPTS = 5
"""The most that gRPC allows: about a second, while a service is replaced."""
LEAST_TIMEOUT = timedelta(seconds=2)
"""
The minimum timeout: with a shorter one, grpcio 1.85.1 ends every call at once.

The service enforces the contract's deadline anyway.
"""


def service_config(service: Service, *, timeouts: bool = True) -> str:
    """
    Return the service config as JSON.

    Args:
        timeouts: Whether to include the deadlines, see `LEAST_TIMEOUT`. Our own channel sets
            them on each call instead.

    Source:
        gRFC A6 (client retries), including its token bucket; gRPC, service_config.proto.
    """
    groups: dict[tuple[timedelta, int], list[Method]] = {}
    for method in service.methods:
        groups.setdefault((method.deadline, _attempts(method)), []).append(method)
    return json.dumps(
        {
            "loadBalancingConfig": [{"round_robin": {}}],
            "methodConfig": [_methods(service, g, timeouts=timeouts) for g in groups.values()],
            # Each failure costs one token and each success gives 0.1 back; below half, no retries.
            "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
        },
        sort_keys=True,
    )


def _methods(service: Service, group: list[Method], *, timeouts: bool) -> dict[str, Any]:
    """Return the configuration of methods with the same deadline and retries."""
    config: dict[str, Any] = {
        "name": [{"service": service.full_name, "method": method.name} for method in group]
    }
    if timeouts:
        config["timeout"] = f"{max(group[0].deadline, LEAST_TIMEOUT).total_seconds():g}s"
    if attempts := _attempts(group[0]):
        config["retryPolicy"] = {
            "maxAttempts": attempts,
            "initialBackoff": "0.05s",
            "maxBackoff": "0.5s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
    return config


def _attempts(method: Method) -> int:
    return MOST_ATTEMPTS if method.may_retry else STREAM_ATTEMPTS if method.may_reopen else 0
