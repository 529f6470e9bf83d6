"""Dashboard of the mesh: objectives, error budgets, calls, proxies, certificates."""

from mesh.chassis.telemetry import names
from mesh.contract.policy import Mesh
from mesh.render.dashboards.panel import Board, Chart, Figure, Panel, Unit, none
from mesh.render.rules.recording import BY_METHOD, CALLS, FAULTS, SERVED, ends
from mesh.render.rules.slo import PAGES_ABOVE

_MONTH = "30d"


def board(mesh: Mesh) -> Board:
    """Return the dashboard of *mesh*."""
    declared = len({edge for edge in mesh.edges() if "*" not in edge})
    return Board(
        uid="amarre-mesh",
        title="AMARRE / Mesh and objectives",
        about="Objectives, remaining error budgets, and calls between services.",
        rows=(
            ("Objectives", _objectives(mesh)),
            ("Calls between services", _edges(declared)),
            ("Proxies", _PROXIES),
            ("Certificates and rejected calls", _TRUST),
        ),
    )


def _objectives(mesh: Mesh) -> tuple[Panel, ...]:
    calls = ends(mesh)
    failed = f'sum by ({BY_METHOD}) (increase({CALLS}{{{calls},code=~"{FAULTS}"}}[{_MONTH}]))'
    every = f"sum by ({BY_METHOD}) (increase({CALLS}{{{calls}}}[{_MONTH}]))"
    return (
        Chart(
            "Remaining error budget, 30 days",
            {
                "{{service}}.{{method}}": f"1 - (({failed} or {every} * 0) / ({every} > 0))\n"
                f"/ on ({BY_METHOD}) (1 - service_method:amarre_availability:objective)"
            },
            Unit.SHARE,
            span=12,
            about="1 is the full budget; below 0 the objective is missed.",
        ),
        Chart(
            "Error budget burn rate",
            {
                "{{service}}.{{method}}, 1 hour": "service_method:amarre_failed:ratio_rate1h"
                f" / on ({BY_METHOD}) (1 - service_method:amarre_availability:objective)",
            },
            limit=PAGES_ABOVE,
            span=12,
            about=f"At 1 the budget lasts exactly 30 days; above {PAGES_ABOVE} on-call is paged.",
        ),
        Chart(
            "95th percentile relative to the objective",
            {
                "{{service}}.{{method}}": "service_method:amarre_latency_seconds:p95_5m"
                f" / on ({BY_METHOD}) service_method:amarre_latency:objective_seconds"
            },
            Unit.SHARE,
            limit=1,
            span=12,
        ),
        Chart(
            "Slow calls, 1 h",
            {"{{service}}.{{method}}": "service_method:amarre_slow:ratio_rate1h"},
            Unit.SHARE,
            span=12,
        ),
    )


def _edges(declared: int) -> tuple[Panel, ...]:
    seen = f"count(sum by (caller, service) (increase({names.RPC_SERVER_CALLS}[1d]) > 0))"
    return (
        Figure("Observed edges, 24 h", seen, about=f"The contracts declare {declared}."),
        Chart(
            "Calls by caller",
            {
                "{{caller}} to {{service}}": "sum by (caller, service) "
                f"(rate({names.RPC_SERVER_CALLS}[$__rate_interval]))"
            },
            Unit.CALLS,
            span=20,
        ),
    )


_PROXIES: tuple[Panel, ...] = (
    Chart(
        "Open circuit breakers",
        {
            "{{workload}} to {{envoy_cluster_name}}, requests": (
                "envoy_cluster_circuit_breakers_default_rq_open"
            ),
            "{{workload}} to {{envoy_cluster_name}}, pending requests": (
                "envoy_cluster_circuit_breakers_default_rq_pending_open"
            ),
            "{{workload}} to {{envoy_cluster_name}}, connections": (
                "envoy_cluster_circuit_breakers_default_cx_open"
            ),
        },
    ),
    Chart(
        "Ejected replicas",
        {
            "{{workload}} to {{envoy_cluster_name}}": (
                "envoy_cluster_outlier_detection_ejections_active"
            )
        },
    ),
    Chart(
        "Healthy replicas",
        {
            "{{workload}} to {{envoy_cluster_name}}": "envoy_cluster_membership_healthy"
            " / (envoy_cluster_membership_total > 0)"
        },
        Unit.SHARE,
    ),
    Chart(
        "Retries, share of requests",
        {
            "{{workload}} to {{envoy_cluster_name}}": (
                "rate(envoy_cluster_upstream_rq_retry[$__rate_interval])"
                " / (rate(envoy_cluster_upstream_rq_total[$__rate_interval]) > 0)"
            )
        },
        Unit.SHARE,
        limit=0.2,
        about="The retry budget is 20 %.",
    ),
    Chart(
        "Rejected by circuit breakers",
        {
            "{{workload}} to {{envoy_cluster_name}}": (
                "rate(envoy_cluster_upstream_rq_active_overflow[$__rate_interval])"
                " + rate(envoy_cluster_upstream_rq_pending_overflow[$__rate_interval])"
            )
        },
        Unit.CALLS,
    ),
    Chart(
        "Connections",
        {"{{workload}} to {{envoy_cluster_name}}": "envoy_cluster_upstream_cx_active"},
    ),
)

_LIFE = f"({names.CERTIFICATE_NOT_AFTER} - {names.CERTIFICATE_NOT_BEFORE})"
_TRUST: tuple[Panel, ...] = (
    Chart(
        "Remaining certificate lifetime",
        {"{{process}}": f"({names.CERTIFICATE_NOT_AFTER} - time()) / {_LIFE}"},
        Unit.SHARE,
        span=12,
        about="Renewed at half the lifetime; alert below a quarter.",
    ),
    Chart(
        "Rejected calls by reason",
        {
            "{{service}}.{{method}} {{reason}}": "sum by (service, method, reason) "
            f"(rate({names.REFUSALS}[$__rate_interval])) or "
            + none(f"rate({SERVED}[$__rate_interval])", "service")
        },
        Unit.CALLS,
        span=12,
    ),
)
