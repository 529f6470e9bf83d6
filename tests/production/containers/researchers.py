"""Researchers who use the stack while it is killed, restarted and upgraded."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx

from tests.integration.researcher import Researcher


def is_signed_in(who: Researcher) -> bool:
    """Sign *who* in; return whether that succeeded."""
    with suppress(httpx.HTTPError, AssertionError):
        who.sign_in()
    return bool(who.session)


def has_created(who: Researcher) -> bool:
    """Return whether *who* has a request, after creating one if there is none."""
    with suppress(httpx.HTTPError, AssertionError):
        return bool(who.requests() or who.create())
    return False


@contextmanager
def returning(ready: dict[str, Any], who: Researcher) -> Iterator[Researcher]:
    """Yield *who* with the same session, trusting the current certificate of the edge."""
    with Researcher(ready, who.email) as again:
        again._session = who.session
        yield again


def is_returning(ready: dict[str, Any], who: Researcher) -> bool:
    """Return whether *who* is served after a restart of everything."""
    with returning(ready, who) as again:
        return is_served(again)


def is_served(who: Researcher) -> bool:
    """Return whether the list of *who* has exactly one request."""
    with suppress(httpx.HTTPError, AssertionError, KeyError):
        return 1 == len(who.requests())
    return False
