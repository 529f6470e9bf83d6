"""Acts as scheduler and kubelet for the pods that the controllers created."""

import json

from tests.production.cluster.control_plane import ControlPlane, ControlPlaneError, Resource

NODE = "nowhere"
TIME = "2026-01-01T00:00:00Z"
READY = ("PodScheduled", "Initialized", "ContainersReady", "Ready")


def run(cluster: ControlPlane, prefix: str = "10.77.0") -> list[Resource]:
    """
    Bind every pod of the mesh, assign an address below *prefix*, report it ready, and return those
    that remain. Terminating pods are removed, as a kubelet would.
    """
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
    cluster.apply([node])
    found = [pod for pod in cluster.get("pods", "-A") if app(pod)]
    taken = {pod["status"].get("podIP") for pod in found}
    free = (a for a in (f"{prefix}.{n}" for n in range(10, 255)) if a not in taken)
    for pod in found:
        try:
            if "deletionTimestamp" in pod["metadata"]:
                remove(cluster, pod)
                continue
            if not pod["spec"].get("nodeName"):
                _bind(cluster, pod)
            if not pod["status"].get("podIP"):
                _report(cluster, pod, prefix, next(free))
        except ControlPlaneError as error:
            # A pod of an earlier version that its controller has removed meanwhile.
            if "NotFound" not in str(error):
                raise
    return [
        pod
        for pod in cluster.get("pods", "-A")
        if app(pod) and pod["status"].get("podIP") and "deletionTimestamp" not in pod["metadata"]
    ]


def app(pod: Resource) -> str:
    """Return the workload of *pod*; empty if it is not of the mesh."""
    name: str = pod["metadata"].get("labels", {}).get("app", "")
    return name


def remove(cluster: ControlPlane, pod: Resource) -> None:
    """Report that nothing of *pod* is running any more."""
    metadata = pod["metadata"]
    forced = ("--force", "--grace-period=0", "--wait=false", "--ignore-not-found")
    cluster.kubectl("-n", metadata["namespace"], "delete", "pod", metadata["name"], *forced)


def _bind(cluster: ControlPlane, pod: Resource) -> None:
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name},
        "target": {"kind": "Node", "name": NODE},
    }
    path = f"/api/v1/namespaces/{namespace}/pods/{name}/binding"
    cluster.kubectl("create", "--raw", path, "-f", "-", text=json.dumps(binding))


def _report(cluster: ControlPlane, pod: Resource, prefix: str, address: str) -> None:
    running = {"running": {"startedAt": TIME}}
    conditions = [{"type": t, "status": "True", "lastTransitionTime": TIME} for t in READY]
    containers = [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": True,
            "started": True,
            "restartCount": 0,
            "state": running,
        }
        for container in pod["spec"]["containers"]
    ]
    status = {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "hostIP": f"{prefix}.1",
        "startTime": TIME,
        "conditions": conditions,
        "containerStatuses": containers,
    }
    metadata = pod["metadata"]
    what = ("-n", metadata["namespace"], "patch", "pod", metadata["name"], "--subresource=status")
    cluster.kubectl(*what, "--type=merge", "-p", json.dumps({"status": status}))
