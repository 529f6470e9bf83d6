"""Prometheus metrics of Auth."""

from prometheus_client import Counter, Gauge

from mesh.chassis.telemetry import names

SESSIONS = Counter("amarre_auth_sessions", "Sessions by event.", ["event"])
OPENED_BY_LINK = SESSIONS.labels("opened_by_link")
OPENED_BY_PASSKEY = SESSIONS.labels("opened_by_passkey")
ENDED = SESSIONS.labels("ended")
ALL_ENDED = SESSIONS.labels("all_ended")
"""Created at import, so that each starts at 0: an increase needs a first sample."""

RATE_LIMITED = Counter(
    "amarre_auth_rate_limited", "Requests that a limit rejected or sent to the reserve.", ["limit"]
)
RATE_LIMITED.labels("links overall")

MAILS = Counter(names.MAILS, "Mails by outcome.", ["outcome"])
WAITING = Gauge(names.MAILS_WAITING, "Mails waiting to be sent.")
