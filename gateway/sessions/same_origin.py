"""Same-origin check of state-changing requests."""

from collections.abc import Set as AbstractSet
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from gateway.errors import CsrfError

SAFE_METHODS = frozenset({"GET", "HEAD"})


def require(connection: HTTPConnection, origins: AbstractSet[str]) -> None:
    """Check that a state-changing request comes from one of our own pages.

    Raises:
        CsrfError: The headers are missing or name another origin.

    Source:
        Fetch Metadata Request Headers, section 2; OWASP CSRF prevention, "verifying origin".
    """
    if connection.scope["method"] in SAFE_METHODS:
        return
    sites = connection.headers.getlist("sec-fetch-site")
    if sites:
        if sites != ["same-origin"]:
            raise CsrfError
        return
    given = connection.headers.getlist("origin")
    hosts = connection.headers.getlist("host")
    if len(given) != 1 or given[0] not in origins or hosts != [urlsplit(given[0]).netloc]:
        raise CsrfError
