"""Invalid requests: the response names the parameter and what is accepted."""

from typing import Any

import pytest
from playwright.async_api import Browser, expect

from tests.mesh.console.conftest import Running
from tests.mesh.console.web.conftest import BROWSER, opened

INVALID = [
    ("traces", {"servce": "auth"}, "servce is not a parameter here; accepted: attr, follow, from"),
    ("mesh", {"x": "1"}, "x is not a parameter here; accepted: none."),
    ("traces", {"status": "bad"}, "status must be one of ok, error."),
    ("traces", {"min_ms": "-1"}, "min_ms must be a number of milliseconds, from 0 to 999999999."),
    ("traces", {"min_ms": "nan"}, "min_ms must be a number of milliseconds, from 0 to 999999999."),
    ("traces", {"min_ms": "1_0"}, "min_ms must be a number of milliseconds, from 0 to 999999999."),
    ("traces", {"min_ms": "5", "max_ms": "0"}, "min_ms must not be larger than max_ms."),
    ("traces", {"min_ms": "10", "max_ms": "5"}, "min_ms must not be larger than max_ms."),
    ("traces", {"limit": "0"}, "limit must be a positive integer; more than 500 counts as 500."),
    ("traces", {"limit": "ten"}, "limit must be a positive integer; more than 500 counts as 500."),
    ("traces", {"attr": "nothing"}, "attr must be key=value."),
    ("traces", {"attr": "=x"}, "attr must be key=value."),
    ("traces", {"since": "yesterday"}, "since must be an RFC 3339 time such as"),
    ("traces", {"since": "2026-01-01"}, "since must be an RFC 3339 time such as"),
    # RFC 3339, section 5.6: neither the basic format nor week dates of ISO 8601.
    ("traces", {"since": "20260101T000000Z"}, "since must be an RFC 3339 time such as"),
    ("traces", {"since": "2026-W01-1T00:00:00Z"}, "since must be an RFC 3339 time such as"),
    ("traces", {"since": "２026-01-01T00:00:00Z"}, "since must be an RFC 3339 time such as"),
    ("traces", {"since": "2026-02-30T00:00:00Z"}, "since must be an RFC 3339 time such as"),
    ("traces", {"from": "-12345678901mJUNK"}, "from must be an RFC 3339 time such as"),
    ("traces", {"from": "-1h", "to": "1970-01-01T00:00:00Z"}, "from must be before to."),
    ("traces", {"from": "-1h", "to": "-99999999999d"}, "from must be before to."),
    ("traces", {"from": "-1h", "to": "-2h"}, "from must be before to."),
    ("logs", {"since": "-1h", "until": "-2h"}, "from must be before to."),
    ("runs", {"from": "-1h", "to": "-2h"}, "from must be before to."),
    ("traces", {"from": "-1h", "since": "-1h"}, "since is an alias of from; give only one"),
    ("traces", {"page_token": "x"}, "page token is invalid; start again without pageToken."),
    # base64 of 10**30,1 and of 1,-1: SQLite has integers of 64 bits.
    ("traces", {"page_token": "MTAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMCwx"}, "token is invalid"),
    ("logs", {"page_token": "MTAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMCwx"}, "token is invalid"),
    ("traces", {"page_token": "MSwtMQ"}, "page token is invalid"),
    ("traces", {"page_token": "", "pageToken": ""}, "page_token is an alias of pageToken"),
    ("traces", {"service": ["a", "b"]}, "service is given twice."),
    ("traces/xyz", {}, "A trace id has 32 hexadecimal characters."),
    (f"traces/{'0' * 32}/spans/{'g' * 16}", {}, "A span id has 16 hexadecimal characters."),
    ("logs", {"level": "loud"}, "level must be one of trace, debug, info, warning"),
    ("logs", {"trace_id": "xyz"}, "trace_id must be 32 hexadecimal characters."),
    ("logs", {"trace_id": "ab"}, "trace_id must be 32 hexadecimal characters."),
    ("logs", {"trace_id": f" {'a' * 31}"}, "trace_id must be 32 hexadecimal characters."),
    ("logs", {"q": "a\0b"}, "q must not contain a null character."),
    ("logs", {"follow": "true", "to": "now"}, "follow cannot be combined with to."),
    ("traces", {"follow": "true", "pageToken": "x"}, "follow cannot be combined with pageToken."),
    ("traces/facets", {"follow": "true"}, "follow is not a parameter here"),
    ("metrics", {"window": "00000000015mJUNK"}, "window must be a duration such as 15m"),
    ("metrics", {"window": "1y"}, "window must be a duration such as 15m, from 10s to 7d."),
    ("metrics", {"service": "nobody"}, "service must be one of gateway, auth, health, survey."),
    ("graph", {"window": "0s"}, "window must be a duration such as 15m, from 10s to 7d."),
    ("overview", {"from": "-40d"}, "from and to must not be more than 31 days apart."),
    ("orders", {"x": "1"}, "x is not a parameter here; accepted: none."),
    ("calls", {"x": "1"}, "x is not a parameter here; accepted: none."),
]


@pytest.mark.parametrize(("path", "parameters", "message"), INVALID, ids=str)
async def test_parameters(
    running: Running, path: str, parameters: dict[str, Any], message: str
) -> None:
    """
    An invalid parameter is never ignored: the message names it and says what is accepted.
    """
    answer = await running.client.get(f"{running.url}/api/{path}", params=parameters)

    assert (400, "invalid_request") == (answer.status_code, answer.json()["error"]["code"])
    assert message in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (f"traces/{'0' * 32}", "There is no trace with this id"),
        (f"traces/{'0' * 32}/spans/{'0' * 16}", "There is no span with this id in this trace."),
        ("incidents/000000000000", "GET /api/incidents lists them"),
        ("metrics/nobody.Call", "There is no method or route nobody.Call; GET /api/metrics"),
        ("nothing", "There is no such endpoint."),
    ],
)
async def test_unknown(running: Running, path: str, message: str) -> None:
    """
    What does not exist is 404 with a sentence that says where to look.
    """
    answer = await running.client.get(f"{running.url}/api/{path}")

    assert (404, "not_found") == (answer.status_code, answer.json()["error"]["code"])
    assert message in answer.json()["error"]["message"]


async def test_method(running: Running) -> None:
    """
    An endpoint that is called with another HTTP method names the accepted ones.
    """
    answer = await running.client.get(f"{running.url}/api/codes")

    assert (405, "method_not_allowed") == (answer.status_code, answer.json()["error"]["code"])
    assert "This endpoint accepts only POST." == answer.json()["error"]["message"]


class TestPages:
    pytestmark = BROWSER

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            (path, "from must be an RFC 3339 time such as")
            for path in (
                "/?from=x",
                "/graph?from=x",
                "/traces?from=x",
                "/logs?from=x",
                "/metrics?from=x",
            )
        ]
        + [
            ("/traces?status=bad", "status must be one of ok, error."),
            ("/logs?level=loud", "level must be one of"),
            ("/metrics?method=nobody.Call", "There is no method or route nobody.Call"),
            ("/incidents/000000000000", "There is no incident with this id"),
            ("/compare?a=x&b=y", "A trace id has 32 hexadecimal characters."),
        ],
    )
    async def test_message(
        self, browser: Browser, running: Running, path: str, message: str
    ) -> None:
        """
        A page with an invalid address shows that sentence too.
        """
        page, _ = await opened(browser, running)
        await page.goto(f"{running.url}{path}")

        await expect(page.locator("main")).to_contain_text(message)

    async def test_filter_in_url(self, browser: Browser, running: Running) -> None:
        """
        A filter of the URL is visible, also if nothing has this value.
        """
        page, _ = await opened(browser, running)
        await page.goto(f"{running.url}/traces?service=nobody")

        await expect(page.get_by_label("Service")).to_have_value("nobody")
