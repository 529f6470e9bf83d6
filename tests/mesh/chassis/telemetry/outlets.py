"""A process that puts the corpus of the redaction rule into every outlet of telemetry.

Prints its lines, and at the end one with its page of metrics.
"""

import contextlib
import json
import logging
import os
import sys
import threading
import urllib.request
import warnings
from collections.abc import Iterator
from typing import Any

import structlog
from opentelemetry import trace
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags
from prometheus_client import Counter

from mesh.chassis import telemetry
from mesh.chassis.config import MeshSettings
from mesh.chassis.telemetry import otlp, tracing
from mesh.chassis.telemetry.metrics import expose
from tests.mesh.contract.redaction_corpus import HARMLESS, HARMLESS_VALUES, NAMES, TEXTS, P

NAMED = [*((name, P) for name in NAMES), *HARMLESS_VALUES]
PARENT = SpanContext(1, 1, is_remote=True, trace_flags=TraceFlags(1))
log = structlog.get_logger("test")


class _Unusual:
    """A value that is neither JSON nor a message."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text


def write_lines(text: str) -> None:
    """Write *text* in each place of a line, and in each way that a process writes lines."""
    log.info(text)
    log.info("field", note=text, inner={"list": [text, (text, _Unusual(text))]}, raw=text.encode())
    with structlog.contextvars.bound_contextvars(context=text):
        log.info("context")
    logging.getLogger("a.library").warning("%s", text)
    try:
        raise RuntimeError(text)
    except RuntimeError:
        log.exception("failed")
        logging.getLogger("a.library").exception("failed")
    warnings.warn(text, stacklevel=2)
    thread = threading.Thread(target=_fail, args=[text])
    thread.start()
    thread.join()


def _fail(text: str) -> None:
    raise LookupError(text)


def create_spans(text: str) -> None:
    """Put *text* into each part of a span."""
    tracer = trace.get_tracer("test")
    link = Link(PARENT, {"note": text, text: 1})
    with tracer.start_as_current_span(text, attributes={"note": text, text: 1}, links=[link]) as s:
        s.add_event(text, {"note": text, "list": [text, text]})
        s.record_exception(RuntimeError(text))
        s.set_status(Status(StatusCode.ERROR, text))
    with contextlib.suppress(RuntimeError), tracing.client(f"client {text}", {"note": text}):
        raise RuntimeError(text)


def count() -> Iterator[Counter]:
    """Use each text as the label of a metric, and each name as the name of a label."""
    counter = Counter("amarre_test_texts", "Texts.", ["note"])
    for text in (*TEXTS, *HARMLESS):
        counter.labels(text).inc()
    yield counter
    for index, (name, found) in enumerate(NAMED):
        label = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)
        if name.isascii() and not label.startswith("__"):
            named = Counter(f"amarre_test_{index}", "A name.", [label])
            named.labels(str(found)).inc()
            yield named


def main() -> None:
    """Fill every outlet."""
    telemetry.start("survey", MeshSettings())
    warnings.simplefilter("always")
    for text in (*TEXTS, *HARMLESS):
        write_lines(text)
        create_spans(text)
    for name, found in NAMED:
        log.info("named", **{name: found})
        values: dict[str, Any] = {name: found}
        with trace.get_tracer("test").start_as_current_span("named", attributes=values) as span:
            span.add_event("named", {name: [found]})
    counters = list(count())
    address = os.environ["PAGE"]
    expose(address)
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as page:
        sys.stdout.write(json.dumps({"page": page.read().decode(), "count": len(counters)}) + "\n")
    sys.stdout.flush()
    otlp.stop()


if __name__ == "__main__":
    main()
