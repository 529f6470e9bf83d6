"""
Kubernetes: kustomize base, components and overlays from topology and contracts.

    workloads   deployments, services, accounts, settings, disruption budgets, autoscaling
    network     network policies
    edge        the edge proxy and its certificate
    monitoring  scrape configuration and rules for Prometheus Operator
    rollouts    canaries and blue-green with Argo Rollouts
    components  options of an overlay: secrets, ingress variants, the site's names
    overlays    dev, staging, production
"""

from dataclasses import replace

from mesh.contract import policy
from mesh.render import deployment
from mesh.render.deployment import Deployment
from mesh.render.kubernetes import (
    components,
    edge,
    monitoring,
    network,
    overlays,
    rollouts,
    workloads,
)
from mesh.render.manifest import Files, kustomization
from mesh.topology import RUNBOOKS

ISTIO = "../../../istio/base"


def render(runbooks: str = RUNBOOKS) -> dict[str, str]:
    """Return the files of this installation's contracts; alerts link to *runbooks*."""
    return files(replace(deployment.load(policy.load()), runbooks=runbooks))


def files(deployed: Deployment) -> dict[str, str]:
    """
    Return the files of *deployed*.

    Raises:
        RenderError: Two resources have the same name.
    """
    base = Files()
    for part in (workloads, network, edge):
        part.add(base, deployed)
    base.add(
        "kustomization.yaml",
        "The mesh without site-specific settings, which the overlays add.",
        kustomization(resources=[*sorted(base), ISTIO]),
    )
    found = {f"base/{name}": text for name, text in base.items()}
    for name, component in {
        **components.every(deployed),
        "monitoring": monitoring.component(deployed),
        "rollouts": rollouts.component(deployed),
        "blue-green": rollouts.blue_green(deployed),
    }.items():
        found |= {f"components/{name}/{file}": text for file, text in component.items()}
    for name, overlay in overlays.every(deployed).items():
        found |= {f"overlays/{name}/{file}": text for file, text in overlay.items()}
    return dict(sorted(found.items()))
