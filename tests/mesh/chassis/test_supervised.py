"""
No task or thread dies silently: each is started by the supervisor, or somebody waits for it.

Every call that starts a task, thread or process of its own is found in the source. What
`mesh.chassis.background` starts is restarted, logged, counted and reported
(`tests.mesh.chassis.test_every_task`); `WAITED_FOR` says of each other one who gets its exception.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("mesh", "gateway", "auth_svc", "survey_svc", "health_svc", "sandbox")
STARTERS = {
    *("create_task", "ensure_future", "run_coroutine_threadsafe", "TaskGroup"),
    *("Thread", "Timer", "start_new_thread", "ThreadPoolExecutor", "ProcessPoolExecutor"),
    *("run_in_executor", "start_soon"),
}
SUPERVISOR = "mesh/chassis/background.py"
WAITED_FOR = {
    "auth_svc/mail/queue.py enqueue": "reports each failed mail itself, and is awaited at the end",
    "auth_svc/signing_keys/jwks_endpoint.py serve_key_set": "awaited; the loop in it is supervised",
    "gateway/rest/event_stream.py __init__": "the next message, awaited by the stream",
    "gateway/rest/event_stream.py __call__": "awaited by the stream",
    "gateway/rest/event_stream.py _texts": "awaited by the stream",
    "gateway/rest/fan_out.py subscribe": "passes every exception on to its listeners",
    "gateway/server/listeners.py start": "awaited by stop; the loop in it is supervised",
    "gateway/sessions/cache.py verify": "awaited by every caller who asks for the session",
    "health_svc/probe_limits.py probe": "awaited by every caller of the probe",
    "health_svc/status.py current": "awaited by every caller of the status",
    "mesh/chassis/channel.py current": "closes a retired channel; close cancels it",
    "mesh/chassis/sql.py __init__": "passes every exception on to the caller of the connection",
    "mesh/chassis/telemetry/otlp.py stop": "joined for two seconds while the process ends",
    "mesh/console/intake/otlp_receiver.py __init__": "awaited by each request that is read",
    "mesh/console/store/reader.py __init__": "awaited by each query",
    "mesh/console/store/reader.py run": "awaited by each query",
    "mesh/console/app.py _http": "awaited at the end; the loop in it is supervised",
    "mesh/deploy/authority.py keep_issuing": "waits for a signal; awaited by the loop",
    "mesh/local/control/canary.py start": "awaited at once; abort cancels it",
    "mesh/local/processes/supervisor.py start": "the start of a process, awaited at once",
    "mesh/local/processes/supervisor.py _start": "a group, awaited at once",
    "mesh/local/runner.py _drain": "awaited at once; the thread ends with the process",
    "mesh/local/runner.py run": "awaited at once",
    "mesh/local/runner.py _end": "awaited at once",
    "sandbox/appwrite/mailer.py send": "a lost mail of the stand-in, like one of any server",
    "sandbox/outbox/__main__.py run": "awaited at the end",
    "sandbox/redcap/app.py _until_gone": "awaited at once",
    "survey_svc/requests/shared_calls.py __init__": "awaited by every caller of the shared call",
}


def started_in(path: str, source: str) -> Iterator[str]:
    """Yield the file and function of each start of a task or thread that is not supervised."""

    def visit(node: ast.AST, function: str) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            inner = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else ""
            if isinstance(child, ast.Call) and _name(child.func) in STARTERS:
                work = child.args[0] if child.args else None
                if not (isinstance(work, ast.Call) and _name(work.func) == "supervise"):
                    yield f"{path} {function}"
            yield from visit(child, inner or function)

    yield from visit(ast.parse(source), "")


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def test_every_start() -> None:
    """Each start of a task or thread is the supervisor's, or is known to be waited for."""
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    found = {
        each
        for path in files
        if (name := str(path.relative_to(ROOT))) != SUPERVISOR
        for each in started_in(name, path.read_text())
    }

    assert found == WAITED_FOR.keys()


@pytest.mark.parametrize(
    "start",
    [
        "asyncio.create_task(watch())",
        "self._task = asyncio.get_running_loop().create_task(self._watch(), name='watch')",
        "threading.Thread(target=watch, daemon=True).start()",
        "loop.run_in_executor(None, watch)",
        "asyncio.ensure_future(watch())",
    ],
)
def test_unsupervised(start: str) -> None:
    """The negative control: a task or thread of one's own is found; a supervised one is not."""
    assert ["x.py f"] == list(started_in("x.py", f"def f(self):\n    {start}\n"))
    supervised = "def f(self):\n    asyncio.create_task(supervise('watch', self._watch))\n"
    assert not list(started_in("x.py", supervised))
