"""How a call continues the trace of its caller (W3C Trace Context, section 3.2; W3C Baggage)."""

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage, propagate, trace
from opentelemetry.context import Context

from mesh.chassis.telemetry import rpc, tracing
from tests.mesh.chassis.telemetry import UNSAMPLED

_HEX = "0123456789abcdef"
_IDS = st.text(_HEX, min_size=32, max_size=32) | st.just("0" * 32)
_SPANS = st.text(_HEX, min_size=16, max_size=16) | st.just("0" * 16)
_BYTES = st.text(_HEX, min_size=2, max_size=2)
WELL_FORMED = st.builds("{}-{}-{}-{}".format, st.just("00") | _BYTES, _IDS, _SPANS, _BYTES)
MALFORMED = st.text(f"{_HEX}GX- \n", max_size=60)


@given(WELL_FORMED | MALFORMED | WELL_FORMED.map(str.upper) | WELL_FORMED.map("{}-more".format))
def test_as_the_library(traceparent: str) -> None:
    """
    Of every `traceparent`, the context is that which OpenTelemetry extracts.
    """
    expected = propagate.extract({tracing.TRACEPARENT: traceparent}, Context())
    found = tracing.context_of(traceparent)

    assert expected.keys() == found.keys()
    wanted, got = (trace.get_current_span(c).get_span_context() for c in (expected, found))
    assert wanted == got
    assert wanted.trace_state == got.trace_state
    assert wanted.is_remote == got.is_remote


async def test_carried() -> None:
    """
    Trace state and baggage of an unsampled call continue, too.
    """
    headers = [("te", "trailers"), ("traceparent", UNSAMPLED)]

    assert not rpc.enter([*headers, ("tracestate", "vendor=1"), ("baggage", "study=7")])
    assert "1" == trace.get_current_span().get_span_context().trace_state.get("vendor")
    assert "7" == baggage.get_baggage("study")
    assert not rpc.enter(headers)
    assert not trace.get_current_span().get_span_context().trace_state
    assert baggage.get_baggage("study") is None
