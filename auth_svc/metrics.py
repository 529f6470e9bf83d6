"""Prometheus metrics of Auth."""

from prometheus_client import Counter, Gauge

SESSIONS = Counter("amarre_auth_sessions", "Sessions, by what became of them.", ["event"])
OPENED_BY_LINK = SESSIONS.labels("opened_by_link")
OPENED_BY_PASSKEY = SESSIONS.labels("opened_by_passkey")
ENDED = SESSIONS.labels("ended")
ALL_ENDED = SESSIONS.labels("all_ended")
"""Created up front, so that each starts at 0: Prometheus sees no increase without a first value."""

RATE_LIMITED = Counter(
    "amarre_auth_rate_limited", "Requests that a limit refused, or sent to the reserve.", ["limit"]
)
RATE_LIMITED.labels("links overall")

MAILS = Counter("amarre_auth_mails_total", "Mails by what became of them.", ["outcome"])
WAITING = Gauge("amarre_auth_mails_waiting", "Mails that wait to be sent.")
