"""Links from other sites to pages that need a session."""

from collections.abc import Set as AbstractSet

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.pages.site import Site
from gateway.sessions import cookies
from gateway.sessions.same_origin import SAFE_METHODS


class CrossSiteNavigation:
    """
    Reloads a page that is opened by a link on another site, such as a web mail.

    Browsers do not send a SameSite=Strict cookie with such a navigation. A page of our own that
    reloads the same address does send it, so a signed-in visitor does not appear signed out.

    Source:
        RFC 6265bis, section 5.6.7.1 ("Strict" and "Lax" enforcement); Fetch Metadata.
    """

    def __init__(self, app: ASGIApp, site: Site, paths: AbstractSet[str]) -> None:
        """Wrap *app*; *paths* need a session."""
        self._app = app
        self._site = site
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] == "http"
            and scope["path"] in self._paths
            and _comes_from_another_site(scope)
            and not cookies.read(request := Request(scope))
        ):
            page = self._site.render(request, "sign_in/again.html", target=_target(scope))
            await page(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _comes_from_another_site(scope: Scope) -> bool:
    return (
        (b"sec-fetch-site", b"cross-site") in scope["headers"]
        and scope["method"] in SAFE_METHODS
        and Headers(scope=scope).get("sec-fetch-mode", "navigate") == "navigate"
    )


def _target(scope: Scope) -> str:
    """Return the path and query of this request."""
    query = scope["query_string"].decode("latin-1")
    path: str = scope["path"]  # One of the paths of the gateway itself.
    return f"{path}?{query}" if query else path
