"""
Istio: what the contracts say, as Istio's resources. Committed below ``mesh/istio``.

``base`` holds one resource per file with the host names of an example; overlays of
``mesh/deploy/kubernetes`` give their own.
"""

from mesh.contract import policy
from mesh.render import deployment
from mesh.render.deployment import Deployment
from mesh.render.istio import edge, filters, installation, scope, security, telemetry, traffic
from mesh.render.manifest import Files, kustomization

BASE = "base"


def render() -> dict[str, str]:
    """Return the files of this installation's contracts."""
    return files(deployment.load(policy.load()))


def files(deployed: Deployment) -> dict[str, str]:
    """
    Return the files of *deployed*.

    Raises:
        RenderError: Two resources have the same name.
    """
    base = Files()
    for part in (security, traffic, scope, edge, filters, telemetry):
        part.add(base, deployed)
    base.add(
        "kustomization.yaml",
        "Everything that Istio needs to know of the mesh, from the contracts.",
        kustomization(resources=sorted(base)),
    )
    return {
        **{f"{BASE}/{name}": text for name, text in base.items()},
        **installation.files(),
    }
