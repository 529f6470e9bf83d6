"""
The gRPC service config of a service: each method's timeout, and retries where the contract allows.

Only channels of the direct transport and clients of other teams use it; with sidecars the proxy of
the caller retries.
"""

import json
from datetime import timedelta
from typing import Any

from mesh.contract.policy import Method, Service

MOST_ATTEMPTS = 3


def service_config(service: Service) -> str:
    """
    Return the service config as JSON.

    Source:
        gRFC A6 (client retries), including its token bucket; gRPC, service_config.proto.
    """
    groups: dict[tuple[timedelta, bool], list[Method]] = {}
    for method in service.methods:
        groups.setdefault((method.deadline, method.may_retry), []).append(method)
    return json.dumps(
        {
            "loadBalancingConfig": [{"round_robin": {}}],
            "methodConfig": [_methods(service, group) for group in groups.values()],
            # Each failure costs one token and each success gives 0.1 back; below half, no retries.
            "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
        },
        sort_keys=True,
    )


def _methods(service: Service, group: list[Method]) -> dict[str, Any]:
    """Return the configuration of methods with the same deadline and the same retries."""
    config: dict[str, Any] = {
        "name": [{"service": service.full_name, "method": method.name} for method in group],
        "timeout": f"{group[0].deadline.total_seconds():g}s",
    }
    if group[0].may_retry:
        config["retryPolicy"] = {
            "maxAttempts": MOST_ATTEMPTS,
            "initialBackoff": "0.05s",
            "maxBackoff": "0.5s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
    return config
