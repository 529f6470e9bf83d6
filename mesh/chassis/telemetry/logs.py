"""Logs: JSON lines on stdout, classified by ``kind``, redacted by `mesh.contract.redaction`.

``kind`` is ``access``, ``error``, ``slow`` or ``security``, and ``event`` for everything else.
"""

import contextlib
import logging
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TextIO

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor

from mesh.chassis import call
from mesh.chassis.telemetry import names, tracing
from mesh.chassis.telemetry.allowance import Allowance
from mesh.chassis.telemetry.metrics import LOG_LINES_LOST, SLOW_CALLS_NOT_RECORDED
from mesh.chassis.telemetry.pseudonym import pseudonym
from mesh.contract import redaction
from mesh.contract.model import LONGEST_CALL

QUIET_SECONDS = 60.0
_SDK = "opentelemetry"
_LIBRARY_RECORD = frozenset({"_record", "_from_structlog"})
"""What `structlog.stdlib.ProcessorFormatter` adds and removes."""

slow_calls = Allowance(per_second=10, burst=50)
"""Rate limit of recorded slow calls."""
ordinary_calls = Allowance(per_second=10, burst=100)
"""Rate limit of log lines of ordinary calls."""
Emit = Callable[[EventDict], None]
_also_emit: list[Emit] = []


def also_emit(emit: Emit | None) -> None:
    """Also pass every written event to *emit*; None stops that."""
    _also_emit[:] = [emit] if emit else []


def configure_logs(
    service: str, instance: str, level: str, *, renderer: Processor | None = None
) -> None:
    """Write our lines to stdout, and those of libraries from WARNING up.

    Python's own warnings and uncaught exceptions become lines too, so that they are redacted.
    Lines are JSON unless a *renderer* is given.
    """

    def add_names(_: object, __: str, event: EventDict) -> EventDict:
        event.setdefault("service", service)
        event.setdefault("instance", instance)
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.format_exc_info,
        redact,
        # What follows is the mesh's own: names, times, ids and pseudonyms.
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        add_names,
        _add_call,
        _add_kind,
    ]
    lines = _Lines(sys.stdout)
    last: list[Processor] = [_emit, renderer or structlog.processors.JSONRenderer(default=str)]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=True,
    )
    handler = _Handler(lines)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
        )
    )
    handler.addFilter(_OncePerMinute())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    _log_what_python_prints()


def kind_of(code: str, elapsed: float, objective: timedelta) -> str:
    """Return the log kind of a call.

    Under overload, every call is slow, and recording each would add to the load. Slow calls above
    the rate of `slow_calls` count as ordinary ones; metrics count all.

    Args:
        code: The name of the gRPC status code, or of the one for the HTTP status.
        elapsed: How long the call took, in seconds.
        objective: The latency objective; long-lived streams are never slow.
    """
    if code in names.SECURITY_CODES:
        return names.KIND_SECURITY
    if code in names.FAULT_CODES:
        return names.KIND_ERROR
    if objective <= LONGEST_CALL and elapsed > objective.total_seconds():
        if slow_calls.take():
            return names.KIND_SLOW
        SLOW_CALLS_NOT_RECORDED.inc()
    return names.KIND_ACCESS


def is_logged(kind: str, span: trace.Span | None, *, behind_proxy: bool) -> bool:
    """Whether a call of a *kind* gets a line: an unusual one always, an ordinary one if sampled.

    Behind a proxy the proxy writes the line of an ordinary call. A line costs about what a tenth
    of a call does; under load those beyond `ordinary_calls` are left out, and metrics count all.
    """
    if kind != names.KIND_ACCESS:
        return True
    is_sampled = span is not None or tracing.share() >= 1
    return is_sampled and not behind_proxy and ordinary_calls.take()


def redact(_: object, __: str, event: EventDict) -> EventDict:
    """Redact *event* with the rule for all telemetry; convert what is not JSON."""
    return {
        key: value if key in _LIBRARY_RECORD else _redacted(key, value)
        for key, value in event.items()
    }


def _redacted(key: str, value: Any) -> Any:
    try:
        return redaction.value(key, redaction.plain(value))
    except Exception:  # its text cannot be made, or it contains itself
        return f"({type(value).__name__} without a text)"


def _log_what_python_prints() -> None:
    """Log warnings and uncaught exceptions, which Python would print to stderr."""
    logging.captureWarnings(capture=True)
    log = logging.getLogger("python")

    def uncaught(kind: type[BaseException], error: BaseException | None, trace: Any) -> None:
        if not issubclass(kind, KeyboardInterrupt | SystemExit):
            log.error("uncaught exception", exc_info=(kind, error or kind(), trace))

    sys.excepthook = uncaught
    threading.excepthook = lambda args: uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    sys.unraisablehook = lambda args: uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def _add_call(_: object, __: str, event: EventDict) -> EventDict:
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        event.setdefault("trace_id", f"{span.trace_id:032x}")
        event.setdefault("span_id", f"{span.span_id:016x}")
    current = call.current()
    if current is not None:
        event.setdefault("rpc", current.method)
        event.setdefault("caller", current.caller.name)
        if current.user is not None:
            event.setdefault("user", pseudonym(current.user.id))
    return event


def _add_kind(_: object, __: str, event: EventDict) -> EventDict:
    is_error = event.get("level") in {"error", "critical"}
    event.setdefault("kind", names.KIND_ERROR if is_error else names.KIND_EVENT)
    return event


def _emit(_: Any, __: str, event: EventDict) -> EventDict:
    for emit in _also_emit if _is_exported(event) else ():
        with contextlib.suppress(Exception):  # A failed export never affects the code that logs.
            emit(event)
    return event


def _is_exported(event: EventDict) -> bool:
    """Whether *event* is exported too, and not only written."""
    if event.get("kind") == names.KIND_ACCESS and trace.get_current_span().is_recording():
        return False  # The span of the call says the same, and a record costs twice as much.
    # The exporters' own warnings are not exported: each would cause the next.
    return not str(event.get("logger", "")).startswith(_SDK)


class _Lines:
    """Writes lines to *file*; counts those that cannot be written and never raises."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def msg(self, message: str) -> None:
        try:
            self._file.write(f"{message}\n")
            self._file.flush()
        except (OSError, ValueError):  # ValueError: the file is closed, or the text has surrogates.
            LOG_LINES_LOST.inc()

    debug = info = warning = error = critical = msg


class _Handler(logging.Handler):
    """Writes what libraries log to the same file."""

    def __init__(self, lines: _Lines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.msg(self.format(record))
        except Exception:
            LOG_LINES_LOST.inc()


class _OncePerMinute(logging.Filter):
    """Limits each warning of the exporters to once a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(_SDK):
            return True
        place = record.pathname, record.lineno
        if record.created - self._last.get(place, 0.0) < QUIET_SECONDS:
            return False
        self._last[place] = record.created
        return True
