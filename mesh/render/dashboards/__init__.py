"""
Grafana dashboards and data sources as code, from the contracts.

    sources      Prometheus, Loki, Tempo, Jaeger, and the links between them
    panel        panels, and their conversion to Grafana's JSON
    system       processes and hosts
    services     one dashboard per service, one for the gateway
    business     business metrics
    objectives   objectives, budgets, edges, proxies, certificates
"""

from mesh.contract import policy
from mesh.render.dashboards import business, objectives, services, sources, system
from mesh.render.dashboards.panel import Board

Files = dict[str, str]


def render() -> Files:
    """Return every dashboard as JSON, and Grafana's provisioning files."""
    return {f"dashboards/{board.uid}.json": board.to_json() for board in boards()} | sources.files()


def boards() -> tuple[Board, ...]:
    """Return every dashboard."""
    mesh = policy.load()
    return (
        system.board(),
        *(services.board(service) for service in mesh.services),
        services.gateway(),
        business.board(),
        objectives.board(mesh),
    )
