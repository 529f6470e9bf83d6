"""Names of metrics, attributes and log kinds that all processes share.

``mesh/observability/signals.yaml`` describes each; a test compares the two.
"""

RPC_SERVER_DURATION = "amarre_rpc_server_duration_seconds"
RPC_CLIENT_DURATION = "amarre_rpc_client_duration_seconds"
RPC_SERVER_IN_FLIGHT = "amarre_rpc_server_in_flight"
RPC_SERVER_CALLS = "amarre_rpc_server_calls_total"
REFUSALS = "amarre_refusals_total"
LIMIT_REFUSALS = "amarre_limit_refusals_total"
HTTP_SERVER_DURATION = "amarre_http_server_duration_seconds"
HTTP_SERVER_IN_FLIGHT = "amarre_http_server_in_flight"
CONCURRENCY_LIMIT = "amarre_gateway_concurrency_limit"
BACKGROUND_FAILURES = "amarre_background_failures_total"
BACKGROUND_UP = "amarre_background_up"
LOG_LINES_LOST = "amarre_log_lines_lost_total"
SLOW_CALLS_NOT_RECORDED = "amarre_slow_calls_not_recorded_total"
DEPENDENCY_UP = "amarre_dependency_up"
BUILD_INFO = "amarre_build_info"
EVENT_LOOP_LAG = "amarre_event_loop_lag_seconds"
USERS_ACTIVE = "amarre_users_active"
CERTIFICATE_NOT_BEFORE = "amarre_certificate_not_before_timestamp_seconds"
CERTIFICATE_NOT_AFTER = "amarre_certificate_not_after_timestamp_seconds"
DB_DURATION = "amarre_db_duration_seconds"
DB_CONNECTIONS = "amarre_db_connections_in_use"
HTTP_CLIENT_DURATION = "amarre_http_client_duration_seconds"
REDCAP_DURATION = "amarre_redcap_duration_seconds"
REDCAP_BREAKER_OPEN = "amarre_redcap_breaker_open"
REQUESTS_CREATED = "amarre_survey_requests_created_total"
MAILS = "amarre_auth_mails_total"
MAILS_WAITING = "amarre_auth_mails_waiting"

RPC_SYSTEM = "rpc.system.name"
RPC_METHOD = "rpc.method"
RPC_STATUS = "rpc.response.status_code"
HTTP_METHOD = "http.request.method"
HTTP_ROUTE = "http.route"
HTTP_STATUS = "http.response.status_code"
SERVER_ADDRESS = "server.address"
PEER = "peer.service"
DB_SYSTEM = "db.system.name"
DB_OPERATION = "db.operation.name"
ERROR_TYPE = "error.type"
USER = "enduser.pseudo.id"
CALLER = "amarre.caller"
CALLER_ID = "amarre.caller_id"
"""The SPIFFE id of the caller, for calls that a proxy has refused."""
POLICY = "amarre.policy"
LATE = "amarre.late"
"""True on a span that was made only because its unsampled call failed or was slow."""

KIND_ACCESS = "access"
KIND_ERROR = "error"
KIND_SLOW = "slow"
KIND_SECURITY = "security"
KIND_EVENT = "event"
"""Anything else: a business event or an event of the process."""

FAULT_CODES = frozenset({"INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN", "DATA_LOSS"})
"""The gRPC codes that are the server's fault; they consume the error budget."""
SECURITY_CODES = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED"})
"""The gRPC codes that are relevant to security monitoring."""


def span_of(path: str) -> str:
    """Return the span name of a gRPC path: ``amarre.survey.v1.SurveyService/ListRequests``."""
    return path.removeprefix("/")
