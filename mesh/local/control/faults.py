"""Injected faults: parsing of action arguments, and descriptions."""

from datetime import timedelta
from typing import Any

import grpc

from mesh.contract import policy
from mesh.control import ControlError
from mesh.render.envoy import InjectedFault

LEAST_PERCENT = 0.0001
"""Envoy counts percentages in millionths."""
LEAST_DELAY_MS, MOST_DELAY_MS = 1, 3_600_000
"""Envoy counts delays in milliseconds, and rejects those of many years."""


def parse_fault(arguments: dict[str, Any]) -> InjectedFault:
    """Return the fault described by *arguments*.

    Raises:
        ControlError: There is no such method or status, or the fault has no effect.
    """
    name = str(arguments.get("method"))
    known = [method.short_name for method in policy.load()]
    if name not in known:
        raise ControlError(f"There is no method {name}. Methods:\n  " + "\n  ".join(known))
    percent = float(arguments.get("percent", 100))
    if not LEAST_PERCENT <= percent <= 100:
        raise ControlError(f"--percent {percent:g} must be from {LEAST_PERCENT:f} to 100.")
    delay_ms, abort = arguments.get("delay_ms"), arguments.get("abort")
    if delay_ms and not LEAST_DELAY_MS <= float(delay_ms) <= MOST_DELAY_MS:
        raise ControlError("--delay must be from 1ms to 60m.")
    if not delay_ms and not abort:
        raise ControlError(
            "A fault needs a delay (300ms), a gRPC status to abort with (UNAVAILABLE), or both."
        )
    codes = {code.name: code.value[0] for code in grpc.StatusCode if code.value[0]}
    if abort and str(abort).upper() not in codes:
        raise ControlError(
            f"{abort} is not a gRPC status to abort with. Use one of {', '.join(codes)}."
        )
    return InjectedFault(
        method=name,
        percent=percent,
        delay=timedelta(milliseconds=float(delay_ms)) if delay_ms else None,
        abort=codes[str(abort).upper()] if abort else None,
    )


def describe(fault: InjectedFault) -> str:
    """Return a description of a fault."""
    parts = []
    if fault.delay is not None:
        parts.append(f"delayed by {fault.delay.total_seconds() * 1000:g} ms")
    if fault.abort is not None:
        names = {code.value[0]: code.name for code in grpc.StatusCode}
        parts.append(f"aborted with {names[fault.abort]}")
    return f"{fault.method}: {fault.percent:g} % {' and '.join(parts)}"
