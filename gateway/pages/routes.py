"""Where each page stands."""

from starlette.routing import BaseRoute, Mount, Route

from gateway.pages.resource import Page
from gateway.pages.site import Site, Static
from gateway.pages.views import Views
from gateway.transcode import Api


def routes(api: Api, site: Site) -> list[BaseRoute]:
    """Return the routes of all pages and static files."""
    views = Views(api, site)
    return [
        Route("/", Page(api, site, get=views.home)),
        Route("/requests", Page(api, site, post=views.create)),
        Route("/signup", Page(api, site, get=views.sign_up_form, post=views.sign_up)),
        Route("/login", Page(api, site, get=views.link, post=views.log_in)),
        Route("/logout", Page(api, site, post=views.log_out)),
        Route("/notice", Page(api, site, get=views.notice)),
        Mount("/static", Static()),
    ]
