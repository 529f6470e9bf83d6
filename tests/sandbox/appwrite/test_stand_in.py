"""The sandbox's responses, call by call."""

import socket
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from mesh.chassis.testing import free_port
from tests.sandbox.appwrite.conftest import KEY, PROJECT, Appwrite, command

TOKENS = "/account/tokens/magic-url"
SESSIONS = "/account/sessions/token"
ADA = {"userId": "unique()", "email": "ada@example.org", "url": "http://localhost:3000/login?x=1"}


def kind(answer: Any) -> tuple[int, str]:
    """Return status and error type after checking the shape of the error."""
    body = answer.json()
    assert {"message", "code", "type", "version"} == set(body)
    assert answer.status_code == body["code"]
    return answer.status_code, body["type"]


def sign_in(appwrite: Appwrite, email: str = "ada@example.org") -> dict[str, Any]:
    """Open a session with the key and return it with its secret."""
    token = appwrite.call("POST", TOKENS, {**ADA, "email": email}, x_appwrite_key=KEY).json()
    body = {"userId": token["userId"], "secret": token["secret"]}
    session: dict[str, Any] = appwrite.call("POST", SESSIONS, body, x_appwrite_key=KEY).json()
    return session


class TestToken:
    def test_guest_does_not_see_the_secret(self, appwrite: Appwrite) -> None:
        """The secret is always in the mail; the response has it for a key only."""
        guest = appwrite.call("POST", TOKENS, ADA)
        by_key = appwrite.call("POST", TOKENS, ADA, x_appwrite_key=KEY)

        assert (201, "") == (guest.status_code, guest.json()["secret"])
        assert appwrite.last_link()["secret"] == by_key.json()["secret"]
        assert {"$id", "$createdAt", "userId", "secret", "expire", "phrase"} == set(guest.json())

    def test_link(self, appwrite: Appwrite) -> None:
        """The link is the given URL with four more parameters."""
        token = appwrite.call("POST", TOKENS, ADA).json()

        link = appwrite.last_link()
        assert {"x", "userId", "secret", "expire", "project"} == set(link)
        assert ("1", token["userId"], "amarre") == (link["x"], link["userId"], link["project"])
        assert 64 == len(link["secret"])

    def test_known_address_keeps_its_id(self, appwrite: Appwrite) -> None:
        """The given id is ignored for a known address and used for an unknown one."""
        first = appwrite.call("POST", TOKENS, {**ADA, "userId": "ada1"}).json()
        again = {**ADA, "userId": "ada2", "email": "ADA@example.org"}
        second = appwrite.call("POST", TOKENS, again).json()

        assert "ada1" == first["userId"] == second["userId"]

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"userId": None}, (400, "general_argument_invalid")),
            ({"userId": ".x"}, (400, "general_argument_invalid")),
            ({"email": "nobody"}, (400, "general_argument_invalid")),
            ({"email": 7}, (400, "general_argument_invalid")),
            ({"url": "http://localhost.evil.com/"}, (400, "general_argument_invalid")),
            ({"url": "localhost/login"}, (400, "general_argument_invalid")),
        ],
    )
    def test_bad_parameter(
        self, appwrite: Appwrite, change: dict[str, object], expected: tuple[int, str]
    ) -> None:
        """A missing or invalid parameter is general_argument_invalid."""
        assert expected == kind(appwrite.call("POST", TOKENS, {**ADA, **change}))

    def test_taken_id(self, appwrite: Appwrite) -> None:
        """A new user cannot have another user's id."""
        appwrite.call("POST", TOKENS, {**ADA, "userId": "ada1"})
        answer = appwrite.call(
            "POST", TOKENS, {**ADA, "userId": "ada1", "email": "bob@example.org"}
        )

        assert (409, "user_already_exists") == kind(answer)


class TestSession:
    def test_single_use(self, appwrite: Appwrite) -> None:
        """A token opens one session; a used, wrong or foreign token gets the same error."""
        appwrite.call("POST", TOKENS, {**ADA, "userId": "ada1"})
        link = appwrite.last_link()
        good = {"userId": "ada1", "secret": link["secret"]}

        answers = [
            appwrite.call("POST", SESSIONS, {**good, "secret": "0" * 64}),
            appwrite.call("POST", SESSIONS, {**good, "userId": "nobody"}),
        ]
        opened = appwrite.call("POST", SESSIONS, good)
        answers.append(appwrite.call("POST", SESSIONS, good))

        assert (201, "") == (opened.status_code, opened.json()["secret"])
        assert {(401, "user_invalid_token")} == {kind(answer) for answer in answers}

    def test_expiry(self, appwrite: Appwrite) -> None:
        """A token is valid for one hour."""
        appwrite.call("POST", TOKENS, {**ADA, "userId": "ada1"})
        good = {"userId": "ada1", "secret": appwrite.last_link()["secret"]}
        appwrite.control("clock", "POST", advance_seconds=3601)

        assert (401, "user_invalid_token") == kind(appwrite.call("POST", SESSIONS, good))

    def test_earlier_tokens_stay_good(self, appwrite: Appwrite) -> None:
        """A new link does not invalidate the previous one."""
        appwrite.call("POST", TOKENS, {**ADA, "userId": "ada1"})
        old = {"userId": "ada1", "secret": appwrite.last_link()["secret"]}
        appwrite.call("POST", TOKENS, ADA)

        assert 201 == appwrite.call("POST", SESSIONS, old).status_code

    def test_cookies(self, appwrite: Appwrite) -> None:
        """
        A guest receives the session as two cookies; either one authenticates, as do header and
        fallback.
        """
        appwrite.call("POST", TOKENS, {**ADA, "userId": "ada1"})
        good = {"userId": "ada1", "secret": appwrite.last_link()["secret"]}
        opened = appwrite.call("PUT", "/account/sessions/magic-url", good)
        sent = opened.cookies["a_session_amarre"]
        value = unquote(sent)

        for headers in (
            {"cookie": f"a_session_amarre={sent}"},
            {"cookie": f"a_session_amarre_legacy={sent}"},
            {"x_appwrite_session": value},
            {"x_fallback_cookies": f'{{"a_session_amarre": "{value}"}}'},
        ):
            account = appwrite.call("GET", "/account", **headers)
            assert ("ada1", True) == (account.json()["$id"], account.json()["emailVerification"])
        again = appwrite.call("POST", SESSIONS, good, x_appwrite_session=value)
        assert (401, "user_session_already_exists") == kind(again)

    def test_no_session(self, appwrite: Appwrite) -> None:
        """
        Without a session, or with a wrong or ended one, the caller is a guest; a key is not a user
        either.
        """
        secret = sign_in(appwrite)["secret"]
        appwrite.call("DELETE", "/account/sessions/current", x_appwrite_session=secret)

        answers = [
            appwrite.call("GET", "/account"),
            appwrite.call("GET", "/account", x_appwrite_session="bm90IGl0"),
            appwrite.call("GET", "/account", x_appwrite_session=secret),
            appwrite.call("GET", "/account", x_appwrite_key=KEY),
        ]
        assert {(401, "general_unauthorized_scope")} == {kind(answer) for answer in answers}

    def test_ten_sessions(self, appwrite: Appwrite) -> None:
        """The eleventh session ends the oldest one."""
        secrets = [sign_in(appwrite)["secret"] for _ in range(11)]

        assert 401 == appwrite.call("GET", "/account", x_appwrite_session=secrets[0]).status_code
        listed = appwrite.call("GET", "/account/sessions", x_appwrite_session=secrets[1]).json()
        assert (10, 10) == (listed["total"], len(listed["sessions"]))
        assert 1 == sum(session["current"] for session in listed["sessions"])

    def test_blocked(self, appwrite: Appwrite) -> None:
        """A blocked user gets the error for blocked users, with and without a session."""
        session = sign_in(appwrite)
        appwrite.call(
            "PATCH", f"/users/{session['userId']}/status", {"status": False}, x_appwrite_key=KEY
        )

        for answer in (
            appwrite.call("GET", "/account", x_appwrite_session=session["secret"]),
            appwrite.call("POST", TOKENS, ADA),
        ):
            assert (403, "user_blocked") == kind(answer)

    def test_end_others(self, appwrite: Appwrite) -> None:
        """``current: false`` ends all other sessions; without it all sessions end."""
        one, two = sign_in(appwrite)["secret"], sign_in(appwrite)["secret"]

        appwrite.call("DELETE", "/account/sessions", {"current": False}, x_appwrite_session=one)
        assert 401 == appwrite.call("GET", "/account", x_appwrite_session=two).status_code
        answer = appwrite.call("DELETE", "/account/sessions", x_appwrite_session=one)
        assert (204, b"") == (answer.status_code, answer.content)
        assert 401 == appwrite.call("GET", "/account", x_appwrite_session=one).status_code


class TestJwt:
    def test_dies_with_its_session(self, appwrite: Appwrite) -> None:
        """
        A JWT authenticates while its session is open, creates no other, and cannot accompany a
        session.
        """
        secret = sign_in(appwrite)["secret"]
        token = appwrite.call("POST", "/account/jwts", {}, x_appwrite_session=secret).json()["jwt"]

        assert 200 == appwrite.call("GET", "/account", x_appwrite_jwt=token).status_code
        again = appwrite.call("POST", "/account/jwt", {}, x_appwrite_jwt=token)
        assert (403, "user_jwt_creation_denied") == kind(again)
        both = appwrite.call("GET", "/account", x_appwrite_jwt=token, x_appwrite_session=secret)
        assert (403, "user_jwt_and_cookie_set") == kind(both)
        appwrite.call("DELETE", "/account/sessions/current", x_appwrite_session=secret)
        ended = appwrite.call("GET", "/account", x_appwrite_jwt=token)
        assert (401, "user_jwt_invalid") == kind(ended)


class TestLimits:
    def test_guests_are_limited(self, appwrite: Appwrite) -> None:
        """
        A guest has 10 attempts an hour and sees how many remain; then 429 without Retry-After.
        """
        body = {"userId": "ada1", "secret": "0"}
        left = []
        for _ in range(10):
            answer = appwrite.call("POST", SESSIONS, body)
            if answer.status_code == 401:
                left.append(answer)
        limited = appwrite.call("POST", SESSIONS, body)

        assert 10 == len(left)
        assert (429, "general_rate_limit_exceeded") == kind(limited)
        assert ("10", "0") == (
            limited.headers["x-ratelimit-limit"],
            limited.headers["x-ratelimit-remaining"],
        )
        assert "retry-after" not in limited.headers
        appwrite.control("clock", "POST", advance_seconds=3601)
        assert 401 == appwrite.call("POST", SESSIONS, body).status_code

    def test_keys_are_not(self, appwrite: Appwrite) -> None:
        """A key has no rate limit and sees none."""
        for _ in range(70):
            answer = appwrite.call("POST", TOKENS, ADA, x_appwrite_key=KEY)
            assert 201 == answer.status_code
        assert "x-ratelimit-limit" not in answer.headers


class TestWholeServer:
    def test_headers(self, appwrite: Appwrite) -> None:
        """
        Every response names its server; errors are not cacheable; newer formats cause a warning.
        """
        answer = appwrite.call("GET", "/account", x_appwrite_response_format="2.5.0")

        assert "Appwrite" == answer.headers["server"]
        assert "nosniff" == answer.headers["x-content-type-options"]
        assert "false" == answer.headers["x-debug-fallback"]
        assert "no-cache, no-store, must-revalidate" == answer.headers["cache-control"]
        assert "x-appwrite-warning" in answer.headers

    def test_unknown(self, appwrite: Appwrite) -> None:
        """Unknown projects, routes and users have different errors."""
        other = appwrite.call("GET", "/account", x_appwrite_project="other")
        assert (404, "project_not_found") == kind(other)
        assert (404, "general_route_not_found") == kind(appwrite.call("GET", "/nothing"))
        user = appwrite.call("GET", "/users/nobody", x_appwrite_key=KEY)
        assert (404, "user_not_found") == kind(user)

    @pytest.mark.parametrize(
        ("switches", "expected"),
        [
            ({"smtp": False}, (503, "general_smtp_disabled")),
            ({"magic_url": False}, (501, "user_auth_method_unsupported")),
            ({"mode": "500"}, (500, "general_unknown")),
        ],
    )
    def test_switches(
        self, appwrite: Appwrite, switches: dict[str, object], expected: tuple[int, str]
    ) -> None:
        """Faults of a project can be enabled."""
        appwrite.control("switches", "PUT", **switches)

        assert expected == kind(appwrite.call("POST", TOKENS, ADA))


class TestStart:
    def test_port_in_use(self, tmp_path: Path) -> None:
        """A port in use is reported in one sentence, with exit code 2."""
        with socket.create_server(("127.0.0.1", free_port())) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            ended = subprocess.run(
                command(tmp_path, "--listen", address), capture_output=True, text=True, check=False
            )

        assert 2 == ended.returncode
        assert 1 == len(ended.stderr.splitlines())
        assert address in ended.stderr


@pytest.mark.parametrize(
    "text",
    [
        '{"userId": "a", "name": "\\ud800"}',
        '{"userId": "a", "name": NaN}',
        '{"n": 1e400}',
        "[1",
        "1",
    ],
)
def test_not_json(appwrite: Appwrite, text: str) -> None:
    """
    A body that PHP's json_decode rejects is 400 and stores nothing; one lone surrogate would
    otherwise break the list of users for everybody.
    """
    headers = {"x-appwrite-project": PROJECT, "x-appwrite-key": KEY}
    answer = httpx.post(
        f"{appwrite.endpoint}/users",
        content=text,
        headers=headers | {"content-type": "application/json"},
        trust_env=False,
    )
    assert (400, "general_argument_invalid") == (answer.status_code, answer.json()["type"])
    listed = httpx.get(f"{appwrite.endpoint}/users", headers=headers, trust_env=False)
    assert 0 == listed.json()["total"]
