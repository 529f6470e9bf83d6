"""Routes of all pages."""

from typing import Any

from starlette.routing import BaseRoute, Mount, Route

from gateway.pages.account import Account
from gateway.pages.explorer import Explorer
from gateway.pages.page import Page
from gateway.pages.site import Site, Static
from gateway.pages.views import Views
from gateway.rest.transcode import Api


def routes(api: Api, site: Site, document: dict[str, Any]) -> list[BaseRoute]:
    """Return the routes of all pages and static files; *document* is the OpenAPI document."""
    views = Views(api, site)
    account = Account(views)
    explorer = Explorer(document, site)
    return [
        Route("/", Page(api, site, get=views.home)),
        Route("/requests", Page(api, site, post=views.create)),
        Route("/signup", Page(api, site, get=views.sign_up_form, post=views.sign_up)),
        Route("/login", Page(api, site, get=views.link, post=views.log_in)),
        Route("/logout", Page(api, site, post=account.log_out)),
        Route("/sessions/end", Page(api, site, post=account.end_session)),
        Route("/passkeys/remove", Page(api, site, post=account.remove_passkey)),
        Route("/second-factor", Page(api, site, post=account.second_factor)),
        Route("/confirm", Page(api, site, get=account.confirm)),
        Route("/console", Page(api, site, post=account.console)),
        Route("/notice", Page(api, site, get=views.notice)),
        Route("/api/docs", Page(api, site, get=explorer.page)),
        Route("/api/openapi.json", Page(api, site, get=explorer.document)),
        Mount("/static", Static()),
    ]
