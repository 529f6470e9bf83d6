"""gRPC service configs, for external clients that do not use our channel."""

import json

from mesh.contract import policy
from mesh.contract.service_config import service_config


def render() -> dict[str, str]:
    """Return one JSON file per service."""
    return {
        f"{service.name}.json": json.dumps(json.loads(service_config(service)), indent=2) + "\n"
        for service in policy.load().services
    }
