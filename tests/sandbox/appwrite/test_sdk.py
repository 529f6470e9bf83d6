"""The official Python SDK completes the whole sign-in against the sandbox."""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from tests.sandbox.appwrite.conftest import KEY, PROJECT, Appwrite

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from appwrite.client import Client
    from appwrite.exception import AppwriteException
    from appwrite.query import Query
    from appwrite.services.account import Account
    from appwrite.services.users import Users


@pytest.fixture
def client(appwrite: Appwrite) -> Iterator[Any]:
    """A client of the project without key or session."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield lambda: Client().set_endpoint(appwrite.endpoint).set_project(PROJECT)


def test_whole_sign_in(appwrite: Appwrite, client: Any) -> None:
    """
    Token, session, account, sessions, JWT, users, sign-out: each response fits the SDK's models.
    """
    with_key = client().set_key(KEY)
    token = Account(with_key).create_magic_url_token(
        "unique()", "ada@example.org", "http://localhost:3000/login"
    )
    session = Account(with_key).create_session(token.userid, token.secret)
    assert appwrite.last_link()["secret"] == token.secret

    account = Account(client().set_session(session.secret))
    user = account.get()
    assert ("ada@example.org", True) == (user.email, user.emailverification)
    assert session.id == account.get_session("current").id
    assert 1 == account.list_sessions().total
    assert account.update_session("current").expire >= session.expire
    # This SDK makes no JWT for an account, but signs in with one.
    made = appwrite.call("POST", "/account/jwts", {}, x_appwrite_session=session.secret)
    assert user.id == Account(client().set_jwt(made.json()["jwt"])).get().id

    users = Users(with_key)
    assert "ada@example.org" == users.get(user.id).email
    assert 1 == users.list_sessions(user.id).total
    assert ["approver"] == users.update_labels(user.id, ["approver"]).labels

    account.delete_session("current")
    with pytest.raises(AppwriteException) as ei:
        account.get()
    assert (401, "general_unauthorized_scope") == (ei.value.code, ei.value.type)


def test_pages_of_users(client: Any) -> None:
    """Users are listed in pages and created with a chosen id; an id in use is a conflict."""
    users = Users(client().set_key(KEY))
    for number in range(5):
        users.create(f"user{number}", email=f"a{number}@example.org")

    first = users.list([Query.limit(3)])
    second = users.list([Query.limit(3), Query.cursor_after(first.users[-1].id)])

    assert (5, 3, 2) == (first.total, len(first.users), len(second.users))
    with pytest.raises(AppwriteException) as ei:
        users.create("user1", email="b@example.org")
    assert 409 == ei.value.code


def test_used_link(client: Any) -> None:
    """Reusing a link raises the SDK's exception with Appwrite's error type."""
    account = Account(client().set_key(KEY))
    token = account.create_magic_url_token("unique()", "ada@example.org")
    account.create_session(token.userid, token.secret)

    with pytest.raises(AppwriteException) as ei:
        account.create_session(token.userid, token.secret)
    assert (401, "user_invalid_token") == (ei.value.code, ei.value.type)


def test_ends_all_sessions_of_a_user(client: Any) -> None:
    """A key ends one session of a user, or all of them."""
    with_key = client().set_key(KEY)
    opened = []
    for _ in range(3):
        token = Account(with_key).create_magic_url_token("unique()", "ada@example.org")
        opened.append(Account(with_key).create_session(token.userid, token.secret))
    users = Users(with_key)

    users.delete_session(opened[0].userid, opened[0].id)
    assert 2 == users.list_sessions(opened[0].userid).total
    users.delete_sessions(opened[0].userid)
    assert 0 == users.list_sessions(opened[0].userid).total


def test_users_as_created(client: Any) -> None:
    """A user has a name, phone and preferences, and can be updated, blocked and deleted."""
    users = Users(client().set_key(KEY))
    made = users.create("ada1", email="ada@example.org", phone="+33123456789", name="Ada L.")
    assert ("Ada L.", "+33123456789") == (made.name, made.phone)

    assert "Ada Lovelace" == users.update_name("ada1", "Ada Lovelace").name
    assert "al@example.org" == users.update_email("ada1", "al@example.org").email
    assert users.update_email_verification("ada1", True).emailverification
    assert "+33987654321" == users.update_phone("ada1", "+33987654321").phone
    assert ["a", "b"] == users.update_labels("ada1", ["a", "b", "a"]).labels
    assert users.create("ada2", phone="+33123456789", password="correct horse").passwordupdate
    for refused, given in (
        (users.update_phone, ("ada2", "+33987654321")),
        (users.create, ("ada3", None, "+33123456789")),
        (users.create, ("ada3", None, None, "short")),
        (users.update_labels, ("ada1", ["é"])),
    ):
        with pytest.raises(AppwriteException):
            refused(*given)
    assert {"theme": "dark"} == users.update_prefs("ada1", {"theme": "dark"}).data
    assert {"theme": "dark"} == users.get_prefs("ada1").data
    assert ["al@example.org"] == [one.identifier for one in users.list_targets("ada1").targets]
    assert not users.update_status("ada1", False).status
    users.delete("ada1")
    with pytest.raises(AppwriteException) as ei:
        users.get("ada1")
    assert (404, "user_not_found") == (ei.value.code, ei.value.type)


QUERIES: tuple[tuple[list[str], list[str]], ...] = (
    ([Query.equal("email", ["b@example.org"])], ["b"]),
    ([Query.equal("name", ["Ada", "Cid"])], ["a", "c"]),
    ([Query.not_equal("name", "Ada")], ["b", "c"]),
    ([Query.equal("status", [False])], ["c"]),
    ([Query.contains("labels", ["approver"])], ["b"]),
    ([Query.starts_with("email", "a@")], ["a"]),
    ([Query.order_desc("name"), Query.limit(2)], ["c", "b"]),
    ([Query.limit(1), Query.offset(1)], ["b"]),
    ([Query.cursor_before("c"), Query.limit(1)], ["b"]),
    (
        [Query.or_queries([Query.equal("name", "Ada"), Query.equal("name", "Cid")])],
        ["a", "c"],
    ),
    (
        [Query.and_queries([Query.not_equal("name", "Ada"), Query.equal("status", True)])],
        ["b"],
    ),
    ([Query.not_contains("name", "d")], ["b"]),
    ([Query.not_starts_with("email", "a@")], ["b", "c"]),
    ([Query.is_null("phone")], ["a", "b", "c"]),
    ([Query.is_not_null("phone")], []),
    ([Query.greater_than("$createdAt", "2000-01-01T00:00:00.000+00:00")], ["a", "b", "c"]),
)
BAD_QUERIES = (
    *(Query.equal("shoeSize", [3]), Query.limit(0), "no", '{"method": "startsWith"}'),
    *(Query.or_queries([Query.equal("name", "Ada")]), '{"method": "or", "values": [1, 2]}'),
    *('{"method": "equal", "attribute": "name", "values": "Ada"}', Query.order_asc("shoeSize")),
)


def test_queries(client: Any) -> None:
    """Users are filtered, sorted and paged with the SDK's queries; other queries are rejected."""
    users = Users(client().set_key(KEY))
    for name in ("Ada", "Bob", "Cid"):
        users.create(name[0].lower(), email=f"{name[0].lower()}@example.org", name=name)
    users.update_labels("b", ["approver"])
    users.update_status("c", False)

    for queries, expected in QUERIES:
        assert expected == [user.id for user in users.list(queries).users], queries
    for query in BAD_QUERIES:
        with pytest.raises(AppwriteException) as ei:
            users.list([query])
        assert (400, "general_argument_invalid") == (ei.value.code, ei.value.type), query


def test_search(client: Any) -> None:
    """Users are found by words of their name, address, phone or id; the total is optional."""
    users = Users(client().set_key(KEY))
    users.create("one", email="ada@example.org", name="Ada Lovelace")
    users.create("two", email="bob@example.org", name="Bob")

    assert ["one"] == [user.id for user in users.list(search="lovelace").users]
    assert ["two"] == [user.id for user in users.list(search="bob@example.org").users]
    assert [] == users.list(search="nobody").users
    assert (2, 0) == (users.list().total, users.list(total=False).total)


def test_token_for_a_user(client: Any) -> None:
    """A token created with a key opens one session, which names its provider."""
    with_key = client().set_key(KEY)
    users = Users(with_key)
    users.create("ada1", email="ada@example.org")
    token = users.create_token("ada1", length=12, expire=120)
    assert 12 == len(token.secret)

    session = Account(with_key).create_session("ada1", token.secret)

    assert ("token", ["token"]) == (session.provider, session.factors)
    assert not users.get("ada1").emailverification
    made = users.create_session("ada1")
    assert "server" == made.provider
    assert "ada1" == Account(client().set_jwt(users.create_jwt("ada1").jwt)).get().id


def test_other_settings_of_a_user(client: Any) -> None:
    """Password date, second factor and verified phone are kept, and read by the user too."""
    users = Users(client().set_key(KEY))
    users.create("a", "a@example.org")

    assert users.update_password("a", "correct horse").passwordupdate
    assert users.update_mfa("a", True).mfa
    assert users.update_phone_verification("a", True).phoneverification
    assert users.list_mfa_factors("a").phone
    with pytest.raises(AppwriteException) as ei:
        users.update_password("a", "short")
    assert (400, "general_argument_invalid") == (ei.value.code, ei.value.type)

    account = Account(client().set_session(users.create_session("a").secret))
    assert account.get().mfa
    assert not account.update_mfa(False).mfa
    assert 0 == account.list_identities().total


def test_own_account(client: Any) -> None:
    """A user can change their name and preferences, and block their account."""
    with_key = client().set_key(KEY)
    Users(with_key).create("ada1", email="ada@example.org")
    secret = Users(with_key).create_session("ada1").secret
    account = Account(client().set_session(secret))

    assert "Ada" == account.update_name("Ada").name
    assert {"a": 1} == account.update_prefs({"a": 1}).prefs.data
    assert {"a": 1} == account.get_prefs().data
    assert not account.update_status().status
    with pytest.raises(AppwriteException) as ei:
        account.get()
    assert (403, "user_blocked") == (ei.value.code, ei.value.type)


def test_fallback_cookies(appwrite: Appwrite) -> None:
    """A browser without third-party cookies receives its session in a header and sends it back."""
    appwrite.call(
        "POST", "/account/tokens/magic-url", {"userId": "ada1", "email": "ada@example.org"}
    )
    link = appwrite.last_link()
    body = {"userId": link["userId"], "secret": link["secret"]}
    opened = appwrite.call("POST", "/account/sessions/token", body)
    held = opened.headers["x-fallback-cookies"]

    shown = appwrite.call("GET", "/account", x_fallback_cookies=held)
    assert "ada@example.org" == shown.json()["email"]
    ended = appwrite.call("DELETE", "/account/sessions/current", x_fallback_cookies=held)
    assert "[]" == ended.headers["x-fallback-cookies"]


def test_ping(appwrite: Appwrite) -> None:
    """The server responds to a ping."""
    assert "Pong!" == appwrite.call("GET", "/ping").text
