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
        Route("/", Page(api, get=views.home)),
        Route("/requests", Page(api, post=views.create)),
        Route("/signup", Page(api, get=views.sign_up_form, post=views.sign_up)),
        Route("/login", Page(api, get=views.link, post=views.log_in)),
        Route("/logout", Page(api, post=account.log_out)),
        Route("/sessions/end", Page(api, post=account.end_session)),
        Route("/passkeys/remove", Page(api, post=account.remove_passkey)),
        Route("/second-factor", Page(api, post=account.second_factor)),
        Route("/confirm", Page(api, get=account.confirm)),
        Route("/console", Page(api, post=account.console)),
        Route("/notice", Page(api, get=views.notice)),
        Route("/api/docs", Page(api, get=explorer.page)),
        Route("/api/openapi.json", Page(api, get=explorer.document)),
        Mount("/static", Static()),
    ]
