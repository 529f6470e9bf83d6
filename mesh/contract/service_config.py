"""
The gRPC service config of a service: retries where the contract allows them, nowhere else.

Only channels of the direct transport use it; with sidecars the proxy of the caller retries.
"""

import json

from mesh.contract.policy import Service

MOST_ATTEMPTS = 3


def service_config(service: Service) -> str:
    """
    Return the service config as JSON.

    Source:
        gRFC A6 (client retries), including its token bucket.
    """
    retried = [
        {"service": service.full_name, "method": method.name}
        for method in service.methods
        if method.may_retry
    ]
    return json.dumps(
        {
            "loadBalancingConfig": [{"round_robin": {}}],
            "methodConfig": [
                {
                    "name": retried,
                    "retryPolicy": {
                        "maxAttempts": MOST_ATTEMPTS,
                        "initialBackoff": "0.05s",
                        "maxBackoff": "0.5s",
                        "backoffMultiplier": 2,
                        "retryableStatusCodes": ["UNAVAILABLE"],
                    },
                }
            ],
            # Each failure costs one token and each success gives 0.1 back; below half, no retries.
            "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
        },
        sort_keys=True,
    )
