"""A researcher's whole flow through a running mesh."""

import html
import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, quote_plus, urlsplit

import httpx

from mesh.contract import policy
from tests.integration.outputs import arrived, leaks, outputs
from tests.integration.researcher import COOKIE, INVITES_FOR_RESEARCH, Researcher, whole_way

ADDRESS = "planted.canary+tag@example.org"
SECRET = "planted5ecret"
ANSWER = "Planté dans une réponse libre"
LEAKED_TRACE = "1eaced00000000000000000000000000"


def test_whole_way(live: Any) -> None:
    """From sign-up to a finished request with two opinions, its data, its PDF and sign-out."""
    whole_way(live, "ada@example.org")


def test_nothing_personal_gets_out(live: Any) -> None:
    """
    No address, secret, token, cookie or answer appears in any log, span, metric, page or error: the
    whole output is searched, and the same search finds deliberate leaks.
    """
    with Researcher(live, ADDRESS) as canary:
        canary.sign_in()
        query = parse_qs(urlsplit(canary.mailed_link()).query)
        request = canary.create()
        link = canary.step(request, "form")["url"]
        canary.fill(link, {**INVITES_FOR_RESEARCH, "invitation_projet_recherche": ANSWER})
        assert ANSWER in canary.send("GET", "/api/v1/surveys/data?format=csv").text
        canary.send("GET", "/api/v1/surveys/pdf", params={"record_id": request})
        refused = list(_refused(canary))
        session = canary.session
        canary.data("POST", "/api/v1/auth/logout")
        assert canary.send("GET", "/api/v1/me").status_code == 401
        canary.sign_in()
        listed = canary.send("GET", "/api/v1/surveys/list")
        assert listed.is_success
        wrong = {"userId": "zz", "secret": SECRET}
        refused.append(canary.send("POST", "/api/v1/auth/login", json=wrong))
        planted = {
            "address": ADDRESS,
            "its local part": ADDRESS.partition("@")[0],
            "link secret": query["secret"][0],
            "refused secret": SECRET,
            "cookie": session,
            "later cookie": canary.session,
            "user token": "eyJhbGciOi",
            "survey hash": link.rpartition("=")[2],
            "answer": "Emmy Noether",
            "free text": ANSWER,
            "token of REDCap": live["sandbox"]["token"],
            "token of the console": live["console"]["token"],
        }
    denied = httpx.get(f"{live['urls']['app']}/api/v1/me", trust_env=False)
    assert denied.status_code == 401
    arrived(
        live,
        spans=dict.fromkeys(("gateway", "auth", "survey"), _trace_of(listed)),
        lines={"gateway": _trace_of(denied)},  # An ordinary call has no exported line.
    )
    found = outputs(live)

    assert {400, 401, 403, 404, 405} <= {answer.status_code for answer in refused}
    errors = {f"error {n}": f"{a.headers} {a.text}" for n, a in enumerate(refused)}
    assert [] == leaks(planted, found | errors)
    removed = json.loads(found["console /api/intake"])["dropped"]
    assert not [d for d in removed if d["service"] in (*policy.SERVICES, "gateway")]

    _leak(live, "leaked on pürpose")
    places = {
        leak.rpartition(" in ")[2] for leak in leaks({"it": "leaked on pürpose"}, outputs(live))
    }
    assert places == {
        "outbox.log",
        "console /api/logs?limit=1000",
        f"console /api/traces/{LEAKED_TRACE}",
        "console series leaked",
        "console /api/export",
    }


def test_declared_edges_are_seen(live: Any) -> None:
    """
    After a sign-up, the console's graph has observed every declared edge of that flow: to the
    services, and from them to REDCap and to the mail server.
    """
    with Researcher(live, "edges@example.org") as somebody:
        somebody.sign_in()
        somebody.requests()
    ways = {("browser", "gateway"), ("gateway", "auth"), ("auth", "survey"), ("gateway", "survey")}
    expected = {*ways, ("survey", "redcap"), ("auth", "outbox")}
    headers = {"authorization": f"Bearer {live['console']['token']}"}
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        answer = httpx.get(f"{live['urls']['console']}/api/graph", headers=headers, trust_env=False)
        edges = answer.json()["items"]
        seen = {(e["from"], e["to"]) for e in edges if e["declared"] and e["observed"]}
        if expected <= seen:
            break
        time.sleep(0.5)

    assert set() == expected - seen


def _trace_of(answer: httpx.Response) -> str:
    return answer.headers["traceresponse"].split("-")[1]


def _refused(canary: Researcher) -> Iterator[httpx.Response]:
    """Yield responses to requests with planted values in the wrong places."""
    post, get = (partial(canary.send, method) for method in ("POST", "GET"))
    yield post("/api/v1/auth/signup", json={"email": f"{ADDRESS}, {ADDRESS}"})
    yield post("/api/v1/auth/signup", json={"email": ADDRESS.replace("org", "com")})
    yield post("/api/v1/auth/login", json={"userId": ADDRESS, "secret": SECRET})
    yield post("/api/v1/auth/login", content=f'{{"secret": "{SECRET}"')
    yield post("/api/v1/auth/login", json={"secret": SECRET}, headers={"Sec-Fetch-Site": "none"})
    yield get("/api/v1/surveys/links", params={"record": SECRET, "instrument": ADDRESS})
    yield get("/api/v1/surveys/pdf", params={"record_id": ADDRESS})
    yield get("/api/v1/surveys/data", params={"format": SECRET})
    yield get("/api/v1/health/online", params={"host": ADDRESS, "port": SECRET})
    yield get(f"/api/v1/{SECRET}/{quote(ADDRESS)}")
    # The page of a link holds its secret, to be posted; it is no error.
    assert get("/login", params={"userId": ADDRESS, "secret": SECRET}).is_success
    yield canary.send("DELETE", f"/api/v1/me?of={quote(ADDRESS)}")
    bare = {"Cookie": f"{COOKIE}={SECRET}", "Authorization": f"Bearer {SECRET}"}
    yield httpx.get(f"{canary.app}/api/v1/me", headers=bare, trust_env=False)


def _leak(live: Any, text: str) -> None:
    """Leak *text* in every possible way: a log line, a span, a record, a label."""
    data = Path(live["pki"]["ca"]).parents[2]
    with (data / "logs/outbox.log").open("a") as log:
        log.write(json.dumps({"event": text}) + "\n")
    now = str(time.time_ns())
    leak: dict[str, Any] = {
        "attributes": [{"key": "note", "value": {"stringValue": text}}],
        "timeUnixNano": now,
    }
    span = {"traceId": LEAKED_TRACE, "spanId": "00f067aa0ba902b7", "name": "leak"}
    bodies: dict[str, dict[str, Any]] = {
        "traces": {"scopeSpans": [{"spans": [leak | span | {"startTimeUnixNano": now}]}]},
        "logs": {"scopeLogs": [{"logRecords": [leak | {"severityNumber": 9}]}]},
        "metrics": {
            "scopeMetrics": [
                {"metrics": [{"name": "leaked", "gauge": {"dataPoints": [leak | {"asInt": 1}]}}]}
            ]
        },
    }
    for signal, body in bodies.items():
        resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "leaky"}}]}
        key = {"traces": "resourceSpans", "logs": "resourceLogs", "metrics": "resourceMetrics"}
        answer = httpx.post(
            f"{live['urls']['otlp_http']}/v1/{signal}",
            json={key[signal]: [{"resource": resource} | body]},
            trust_env=False,
        )
        assert answer.is_success, answer.text
    _kept(live)


def _kept(live: Any) -> None:
    """Wait until the console shows the leaks."""
    headers = {"authorization": f"Bearer {live['console']['token']}"}
    ends = time.monotonic() + 30
    with httpx.Client(
        base_url=f"{live['urls']['console']}/api", headers=headers, trust_env=False
    ) as console:
        for path in (f"traces/{LEAKED_TRACE}", "logs?service=leaky", "series?name=leaked"):
            while not (found := console.get(path)).is_success or found.json().get("items") == []:
                assert time.monotonic() < ends, f"{path}: {found.text}"
                time.sleep(0.05)


def test_every_form_is_found() -> None:
    """The search finds a planted value in the encodings of URLs, JSON and pages, in any case."""
    value = 'Ada <ada+é@example.org> said "no"'
    forms = [value.upper(), quote(value), quote_plus(value), json.dumps(value), html.escape(value)]
    found = {str(n): f"before {form} after" for n, form in enumerate(forms)}

    assert len(leaks({"it": value}, found)) == len(forms)
    assert [] == leaks({"it": value}, {"elsewhere": "nothing of it"})
