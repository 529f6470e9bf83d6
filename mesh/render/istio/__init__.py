"""
The contracts as Istio resources, committed in ``mesh/istio``.

``base`` has one resource per file, with example host names; the overlays in
``mesh/deploy/kubernetes`` set their own.
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
        "The Istio resources of the mesh, rendered from the contracts.",
        kustomization(resources=sorted(base)),
    )
    return {
        **{f"{BASE}/{name}": text for name, text in base.items()},
        **installation.files(),
    }
