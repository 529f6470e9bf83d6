"""
Canaries and blue-green with Argo Rollouts, with the same analysis as ``amarre canary``.

Not Flagger: it rewrites the routes of a service with one timeout and one retry policy for all
methods, and relabels pods, which excludes them from every policy. Argo Rollouts changes only the
weights of existing routes.
"""

from mesh.chassis.telemetry import names
from mesh.contract.policy import Method, Service
from mesh.render.deployment import MONITORING, Deployment, Workload
from mesh.render.istio.traffic import CANARY, STABLE
from mesh.render.manifest import Files, Resource, inline, kustomization, resource

ROLLOUT = "argoproj.io/v1alpha1 Rollout"
ANALYSIS = "argoproj.io/v1alpha1 AnalysisTemplate"
STEPS = (10, 25, 50)
"""Percentages before full promotion."""
STEP_SECONDS = 120
PROMETHEUS = f"http://prometheus-operated.{MONITORING}.svc.cluster.local:9090"
LEAST_CALLS = 20
"""Minimum number of calls for an analysis; with fewer, the canary waits."""
_CALLS = f"{names.RPC_SERVER_DURATION}_count"
_BUCKETS = f"{names.RPC_SERVER_DURATION}_bucket"
_FAULTS = "|".join(sorted(names.FAULT_CODES))
_REVISION = 'revision="{{args.revision}}"'


def component(deployed: Deployment) -> Files:
    """Return the component with a canary for each service."""
    files = Files()
    patches = []
    for service in deployed.mesh.services:
        workload = deployed.workload(service.name)
        files.add(
            f"rollout-{workload.name}.yaml",
            f"Gives a new {workload.name} {', '.join(map(str, STEPS))} and 100 % of the calls, and "
            "returns them at the first\nfailed analysis. Timeouts and retries of its routes do not "
            "change.",
            resource(
                ROLLOUT,
                workload.name,
                workload.namespace,
                spec=_spec(workload, _canary(service)),
            ),
        )
        files.add(
            f"analysis-template-{workload.name}.yaml",
            f"Analyses a new {workload.name}. Mirrors policy.objective:\n"
            + "\n".join(f"  {m.name}: {_promise(m)} ({m.source})" for m in _judged(service)),
            resource(ANALYSIS, workload.name, workload.namespace, spec=_analysis(service)),
        )
        patches.append(_scaled_by_the_rollout(workload))
    files.add(
        "kustomization.yaml",
        "Canaries with Argo Rollouts. The deployments remain the source of the pod templates; "
        "the autoscaler scales the rollouts.",
        kustomization(component=True, resources=sorted(files), patches=patches),
    )
    return files


def blue_green(deployed: Deployment) -> Files:
    """Return the component that turns canaries into blue-green: one step, keeping old pods."""
    files = Files()
    patches = [
        _patch(
            "Rollout",
            workload,
            [
                {
                    "op": "replace",
                    "path": "/spec/strategy/canary/steps",
                    "value": [
                        {"setCanaryScale": {"weight": 100}},
                        {"pause": {}},
                        {"setWeight": 100},
                        {"pause": {"duration": f"{STEP_SECONDS}s"}},
                    ],
                },
            ],
        )
        for workload in map(deployed.workload, (s.name for s in deployed.mesh.services))
    ]
    files.add(
        "kustomization.yaml",
        "Blue-green, after the component rollouts: all new pods run next to the old ones and get "
        "only calls with x-canary: 1 until they are promoted, then all calls.",
        kustomization(component=True, patches=patches),
    )
    return files


def _spec(workload: Workload, strategy: Resource) -> Resource:
    return {
        "revisionHistoryLimit": 5,
        "progressDeadlineAbort": True,
        "selector": {"matchLabels": {"app": workload.name}},
        "workloadRef": {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "name": workload.name,
            "scaleDown": "onsuccess",
        },
        "strategy": {"canary": strategy},
    }


def _canary(service: Service) -> Resource:
    pause = {"pause": {"duration": f"{STEP_SECONDS}s"}}
    return {
        "maxSurge": "34%",
        "maxUnavailable": 0,
        "abortScaleDownDelaySeconds": 60,
        "trafficRouting": {
            "istio": {
                "virtualService": {
                    "name": service.name,
                    "routes": [m.name for m in service.methods if not m.stays_open],
                },
                "destinationRule": {
                    "name": service.name,
                    "stableSubsetName": STABLE,
                    "canarySubsetName": CANARY,
                },
            }
        },
        # In the background from the first step on, so that a bad version is aborted at once.
        "analysis": {
            "startingStep": 1,
            "templates": [{"templateName": service.name}],
            "args": [{"name": "revision", "valueFrom": {"podTemplateHashValue": "Latest"}}],
        },
        "steps": [step for weight in STEPS for step in ({"setWeight": weight}, pause)],
    }


def _judged(service: Service) -> list[Method]:
    return [m for m in service.methods if not m.stays_open]


def _promise(method: Method) -> str:
    objective = method.objective
    return (
        f"{objective.availability:.2%} without our fault, "
        f"{objective.latency_share:.0%} within {objective.latency.total_seconds():g} s"
    )


def _analysis(service: Service) -> Resource:
    metrics = []
    for method in _judged(service):
        which = f'service="{service.name}",method="{method.name}",{_REVISION}'
        calls = f"sum(increase({_CALLS}{{{which}}}[5m]))"
        enough = f"{calls} >= {LEAST_CALLS}"
        bad = f'sum(increase({_CALLS}{{{which},code=~"{_FAULTS}"}}[5m]))'
        bound = method.objective.latency.total_seconds()
        fast = f'sum(increase({_BUCKETS}{{{which},le="{bound}"}}[5m]))'
        objective = method.objective
        metrics += [
            _metric(
                f"{method.name}-failed".lower(),
                f"({bad} or vector(0)) / ({enough})",
                f"result[0] <= {_tolerated(objective.availability)}",
            ),
            _metric(
                f"{method.name}-fast".lower(),
                f"{fast} / ({enough})",
                f"result[0] >= {objective.latency_share}",
            ),
        ]
    return {"args": [{"name": "revision"}], "metrics": metrics}


def _tolerated(availability: float) -> float:
    """Return the permitted error ratio of a canary: ten times its error budget, at most 5 %."""
    return round(max(10 * (1 - availability), 0.05), 4)


def _metric(name: str, query: str, condition: str) -> Resource:
    return {
        "name": name,
        "interval": "15s",
        "failureLimit": 0,
        # No result means too few calls for a verdict.
        "successCondition": f"len(result) == 0 || isNaN(result[0]) || {condition}",
        "provider": {"prometheus": {"address": PROMETHEUS, "query": query}},
    }


def _scaled_by_the_rollout(workload: Workload) -> Resource:
    target = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": workload.name}
    operation = {"op": "replace", "path": "/spec/scaleTargetRef", "value": target}
    return _patch("HorizontalPodAutoscaler", workload, [operation])


def _patch(kind: str, workload: Workload, operations: list[Resource]) -> Resource:
    return {
        "target": {"kind": kind, "name": workload.name, "namespace": workload.namespace},
        "patch": inline(operations),
    }
