"""One dashboard per service: rate, errors and duration of each method, with its objective."""

from collections.abc import Iterator

from mesh.chassis.telemetry import names
from mesh.contract.policy import Method, Service
from mesh.render.dashboards.panel import Board, Chart, Figure, Lines, Panel, Unit, none
from mesh.render.rules.recording import BUCKETS, CALLS, FAULTS, SERVED, ends, is_timed

_OUTSIDE: dict[str, tuple[str, tuple[Panel, ...]]] = {
    "survey": (
        "REDCap",
        (
            Chart(
                "Calls by outcome",
                {
                    "{{outcome}}": "sum by (outcome) "
                    f"(rate({names.REDCAP_DURATION}_count[$__rate_interval]))"
                },
                Unit.CALLS,
            ),
            Chart(
                "Duration by content, 95th percentile",
                {
                    "{{content}}": "histogram_quantile(0.95, sum by (content, le) "
                    f"(rate({names.REDCAP_DURATION}_bucket[$__rate_interval])))"
                },
                Unit.SECONDS,
                exemplars=True,
            ),
            Chart(
                "Circuit breaker and event streams",
                {
                    "breaker open": f"max({names.REDCAP_BREAKER_OPEN})",
                    "streams open": "sum(amarre_survey_watchers)",
                },
            ),
            Chart(
                "Cache hit ratio",
                {
                    "{{content}}": "sum by (content) "
                    '(rate(amarre_survey_cache_lookups_total{outcome="hit"}[$__rate_interval]))'
                    " / (sum by (content) "
                    "(rate(amarre_survey_cache_lookups_total[$__rate_interval])) > 0)"
                },
                Unit.SHARE,
            ),
        ),
    ),
    "auth": (
        "Mail and identity provider",
        (
            Chart(
                "Mails by outcome",
                {"{{outcome}}": f"sum by (outcome) (rate({names.MAILS}[$__rate_interval]))"},
                Unit.CALLS,
            ),
            Chart("Mails waiting", {"waiting": f"sum({names.MAILS_WAITING})"}, limit=20),
            Chart(
                "Sign-in requests above a limit",
                {
                    "{{limit}}": "sum by (limit) "
                    "(rate(amarre_auth_rate_limited_total[$__rate_interval]))"
                },
                Unit.CALLS,
                about="Those above `links overall` are served from the reserve while it lasts.",
            ),
            Chart(
                "Identity provider by status",
                {
                    "{{status}}": "sum by (status) "
                    f'(rate({names.HTTP_CLIENT_DURATION}_count{{backend="appwrite"}}'
                    "[$__rate_interval]))"
                },
                Unit.CALLS,
            ),
        ),
    ),
}


def board(service: Service) -> Board:
    """Return the dashboard of *service*."""
    of = f'service="{service.name}"'
    rows: list[tuple[str, tuple[Panel, ...]]] = [("Service", _overview(service, of))]
    rows += [(method.name, tuple(_method(method))) for method in service.methods]
    if service.name in _OUTSIDE:
        rows.append(_OUTSIDE[service.name])
    rows.append(("Log", (_log(service.name),)))
    return Board(
        uid=f"amarre-service-{service.name}",
        title=f"AMARRE / Service {service.name}",
        about=service.summary,
        rows=rows,
    )


def gateway() -> Board:
    """Return the dashboard of the gateway."""
    seconds = names.HTTP_SERVER_DURATION
    return Board(
        uid="amarre-gateway",
        title="AMARRE / Gateway",
        about="Requests and responses of browsers.",
        rows=(
            (
                "Requests",
                (
                    Chart(
                        "Requests by status",
                        {
                            "{{status}}": "sum by (status) "
                            f"(rate({seconds}_count[$__rate_interval]))"
                        },
                        Unit.CALLS,
                    ),
                    Chart(
                        "Gateway errors by route",
                        {
                            "{{route}} {{status}}": "sum by (route, status) "
                            f'(rate({seconds}_count{{status=~"4..|5.."}}[$__rate_interval])) or '
                            + none(f"rate({seconds}_count[$__rate_interval])", "route")
                        },
                        Unit.CALLS,
                        about="4xx and 5xx responses.",
                    ),
                    Chart(
                        "Duration by route, 95th percentile",
                        {
                            "{{route}}": "histogram_quantile(0.95, sum by (route, le) "
                            f"(rate({seconds}_bucket[$__rate_interval])))"
                        },
                        Unit.SECONDS,
                        limit=1,
                        exemplars=True,
                    ),
                    Chart(
                        "Requests in flight", {"requests": f"sum({names.HTTP_SERVER_IN_FLIGHT})"}
                    ),
                ),
            ),
            ("Log", (_log("gateway"),)),
        ),
    )


def _overview(service: Service, of: str) -> tuple[Panel, ...]:
    calls = f"{of},{ends(service.methods)}"
    every = f"sum(rate({CALLS}{{{calls}}}[5m]))"
    # A series of failures exists only after the first failure: show zero instead of "no data".
    faults = f'(sum(rate({CALLS}{{{calls},code=~"{FAULTS}"}}[5m])) or {every} * 0)'
    errors = f'rate({SERVED}{{{of},code!="OK"}}[$__rate_interval])'
    in_flight = f"{names.RPC_SERVER_IN_FLIGHT}{{{of}}}"
    return (
        Figure("Calls per second", every, Unit.CALLS),
        Figure("Error ratio", f"{faults} / ({every} > 0)", Unit.SHARE),
        Figure(
            "95th percentile",
            f"histogram_quantile(0.95, sum by (le) (rate({BUCKETS}{{{calls}}}[5m])))",
            Unit.SECONDS,
        ),
        Figure("Calls in flight", f"sum({in_flight})"),
        Figure("Replicas", f'sum(up{{job="amarre",workload="{service.name}"}})'),
        Figure(
            "Days until certificate expiry",
            f'min({names.CERTIFICATE_NOT_AFTER}{{workload="{service.name}"}} - time()) / 86400',
        ),
        Chart(
            "Calls by method",
            {"{{method}}": f"sum by (method) (rate({CALLS}{{{of}}}[$__rate_interval]))"},
            Unit.CALLS,
        ),
        Chart(
            "Errors by reason",
            {
                "{{code}} {{reason}}": f"sum by (code, reason) ({errors}) or "
                + none(f"rate({SERVED}{{{of}}}[$__rate_interval])", "code")
            },
            Unit.CALLS,
        ),
        Chart(
            "Calls in flight and limit",
            {"{{process}}": f"sum by (process) ({in_flight})"},
            limit=service.max_concurrent_requests,
        ),
    )


def _method(method: Method) -> Iterator[Panel]:
    of = f'service="{method.service}",method="{method.name}"'
    yield Chart(
        "Calls by code",
        {"{{code}}": f"sum by (code) (rate({CALLS}{{{of}}}[$__rate_interval]))"},
        Unit.CALLS,
        about=f"Policy: {method.source}. Callers: {', '.join(method.callers)}.",
    )
    if is_timed(method):
        bound = method.objective.latency.total_seconds()
        yield Chart(
            "Duration",
            {
                f"{percent}th percentile": f"histogram_quantile({percent / 100}, sum by (le) "
                f"(rate({BUCKETS}{{{of}}}[$__rate_interval])))"
                for percent in (50, 95, 99)
            },
            Unit.SECONDS,
            limit=bound,
            exemplars=True,
            about=f"Objective: {method.objective.latency_share:.0%} within {bound:g} s.",
        )
    yield Chart(
        "Error ratio",
        {"share": f"service_method:amarre_failed:ratio_rate5m{{{of}}}"},
        Unit.SHARE,
        limit=1 - method.objective.availability,
        about=f"Objective: {100 * method.objective.availability:.4g} % availability.",
    )


def _log(service: str) -> Lines:
    return Lines(
        "Errors, slow and denied calls",
        # Loki uses the same service label for both sources; the kind is a label from Alloy and
        # structured metadata from OTLP, and a filter matches both.
        f'{{service_name="{service}"}} | kind=~"error|slow|security"',
    )
