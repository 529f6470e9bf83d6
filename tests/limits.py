"""What limits have rejected in this process."""

from prometheus_client import REGISTRY

from mesh.chassis.telemetry import names


def refusals(limit: str) -> float:
    """Return how many requests *limit* has rejected."""
    return REGISTRY.get_sample_value(names.LIMIT_REFUSALS, {"limit": limit}) or 0.0
