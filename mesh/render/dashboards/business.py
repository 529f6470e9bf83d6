"""Business dashboard: sign-ins, requests, downloads."""

from mesh.chassis.telemetry import names
from mesh.render.dashboards.panel import Board, Chart, Figure, Panel, Unit, none
from mesh.render.rules.recording import CALLS, SERVED


def board() -> Board:
    """Return the dashboard."""
    return Board(
        uid="amarre-business",
        title="AMARRE / Business",
        about="Links, sessions, requests, downloads. No personal data.",
        rows=(("Last 24 hours", _LAST_DAY), ("Over time", _OVER_TIME), ("Failures", _FAILURES)),
    )


def _ok(service: str, method: str, window: str) -> str:
    return f'sum(increase({CALLS}{{service="{service}",method="{method}",code="OK"}}[{window}]))'


def _rise(metric: str, window: str) -> str:
    return f"sum(increase({metric}[{window}]))"


_OPENED = 'amarre_auth_sessions_total{event=~"opened_by_.*"}'
_CREATED = names.REQUESTS_CREATED
_COUNTED = {"Sign-ins": _OPENED, "Requests created": _CREATED}
_ACTIONS = {
    "Links requested": ("auth", "SignUp"),
    "Surveys opened": ("survey", "GetLink"),
    "Exports": ("survey", "ExportData"),
    "PDFs": ("survey", "GetPdf"),
}

_LAST_DAY: tuple[Panel, ...] = (
    *(Figure(f"{title}, 24 hours", _rise(metric, "1d")) for title, metric in _COUNTED.items()),
    *(
        Figure(f"{title}, 24 hours", _ok(service, method, "1d"))
        for title, (service, method) in _ACTIONS.items()
    ),
)

_OVER_TIME: tuple[Panel, ...] = (
    Chart("Active users, 15 minutes", {"users": f"max({names.USERS_ACTIVE})"}),
    Chart("Links per hour", {"requested": _ok(*_ACTIONS["Links requested"], "1h")}),
    Chart(
        "Sessions per hour",
        {"{{event}}": "sum by (event) (increase(amarre_auth_sessions_total[1h]))"},
    ),
    Chart("Requests created per hour", {"created": _rise(_CREATED, "1h")}),
    Chart(
        "Downloads per hour", {title: _ok(*_ACTIONS[title], "1h") for title in ("Exports", "PDFs")}
    ),
    Chart("Pages with live updates", {"open": "sum(amarre_survey_watchers)"}),
    Chart(
        "Mails per hour",
        {"{{outcome}}": f"sum by (outcome) (increase({names.MAILS}[1h]))"},
    ),
)

_FAILURES: tuple[Panel, ...] = (
    Chart(
        "Failed sign-ins by reason",
        {
            "{{reason}}": "sum by (reason) "
            f'(increase({SERVED}{{service="auth",method="LogIn",code!="OK"}}[1h])) or '
            + none(f'increase({SERVED}{{service="auth",method="LogIn"}}[1h])', "reason")
        },
    ),
    Chart(
        "Failed request creations by reason",
        {
            "{{reason}}": "sum by (reason) "
            f'(increase({SERVED}{{service="survey",method="CreateRequest",code!="OK"}}[1h])) or '
            + none(f'increase({SERVED}{{service="survey",method="CreateRequest"}}[1h])', "reason")
        },
    ),
    Chart(
        "Time to create a request, 95th percentile",
        {
            "95th percentile": "service_method:amarre_latency_seconds:p95_5m"
            '{service="survey",method="CreateRequest"}'
        },
        Unit.SECONDS,
    ),
)
