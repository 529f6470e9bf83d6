"""
Calls from inside a pod: ``python -m tests.production.cluster.traffic.calls``.

Standard input holds a JSON object with the calls; what came of each is written as JSON. With
``until`` the calls in the file ``source`` are made again and again, 20 a second, until there is a
file of that name; then only how many ended in which way is written. It imports grpc only, since a
pod's caller has nothing else to do.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

PACE_SECONDS = 0.05
_STATUS = "grpc-status-details-bin"
_OPTIONS = [("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0)]


def main() -> None:
    """Make the calls given on standard input."""
    asked = json.load(sys.stdin)
    calls = asked["calls"]
    channels = {
        host: grpc.insecure_channel(host, options=_OPTIONS) for host in {c["host"] for c in calls}
    }

    def make(call: dict[str, Any]) -> dict[str, Any]:
        return one(channels[call["host"]], call)

    if "until" not in asked:
        with ThreadPoolExecutor(asked.get("at_once", 1)) as pool:
            found: Any = list(pool.map(make, calls))
    else:
        found = repeat(make, Path(asked["source"]), Path(asked["until"]))
    json.dump(found, sys.stdout)


def repeat(
    make: Callable[[dict[str, Any]], dict[str, Any]], source: Path, until: Path
) -> dict[str, int]:
    """
    Make the calls in *source* in turn until *until* exists; return the number of each outcome.

    The file is read for each call, since its tokens expire after a minute and are replaced.
    """
    ends: Counter[str] = Counter()
    with ThreadPoolExecutor(32) as pool:
        pending = []
        number = 0
        while not until.exists():
            calls = json.loads(source.read_text())
            pending.append(pool.submit(make, calls[number % len(calls)]))
            number += 1
            time.sleep(PACE_SECONDS)
        for future in pending:
            got = future.result()
            ends["OK" if got["code"] == "OK" else f"{got['code']}: {got['details']}"] += 1
    return dict(ends)


def one(channel: grpc.Channel, call: dict[str, Any]) -> dict[str, Any]:
    """Make one call with an empty request, or with the bytes of *call*; return its outcome."""
    metadata = [("x-canary", "1")] if call.get("canary") else []
    if call.get("token"):
        metadata.append(("authorization", f"Bearer {call['token']}"))
    started = time.monotonic()
    body = bytes.fromhex(call.get("body", ""))
    code, details, reason = "OK", "", ""
    try:
        method: Any = channel.unary_stream(call["path"])
        answers = method(body, metadata=metadata, timeout=call.get("timeout", 5.0))
        next(iter(answers), None)
        if not call.get("first"):
            for _ in answers:
                pass
        answers.cancel()
    except grpc.RpcError as error:
        code, details = error.code().name, error.details() or ""
        reason = _reason(error)
    return {
        "code": code,
        "details": details,
        "reason": reason,
        "seconds": time.monotonic() - started,
    }


def _reason(error: Any) -> str:
    for key, value in error.trailing_metadata() or ():
        if key == _STATUS:
            info = error_details_pb2.ErrorInfo()
            for detail in status_pb2.Status.FromString(value).details:
                if detail.Unpack(info):
                    return str(info.reason)
    return ""


if __name__ == "__main__":
    main()
