"""The official Python SDK drives the stand-in through the whole sign-in."""

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
    """A client of the project, without key or session."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield lambda: Client().set_endpoint(appwrite.endpoint).set_project(PROJECT)


def test_whole_sign_in(appwrite: Appwrite, client: Any) -> None:
    """Token, session, account, sessions, JWT, users, sign-out: each answer fits the SDK's
    models.
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
    """Users are listed in pages, made with an id of one's choice and told apart when taken."""
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
    """A link that was used is the SDK's exception with Appwrite's type."""
    account = Account(client().set_key(KEY))
    token = account.create_magic_url_token("unique()", "ada@example.org")
    account.create_session(token.userid, token.secret)

    with pytest.raises(AppwriteException) as ei:
        account.create_session(token.userid, token.secret)
    assert (401, "user_invalid_token") == (ei.value.code, ei.value.type)


def test_ends_all_sessions_of_a_user(client: Any) -> None:
    """A key ends one session of a user, or all."""
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
