"""The HTTP server: messages as JSON and as a web page."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from sandbox.outbox.store import Store

HERE = Path(__file__).parent
HEADERS = {
    # Mail is untrusted: its HTML is shown without scripts, forms and images.
    "Content-Security-Policy": "default-src 'none'; style-src 'self' 'unsafe-inline'; "
    "script-src 'self'; connect-src 'self'; frame-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def app(store: Store) -> Starlette:
    """Return the web application over *store*."""
    pages = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True)

    async def page(_: Request) -> Response:
        text = pages.get_template("outbox.html").render(messages=store.newest_first())
        return HTMLResponse(text, headers=HEADERS)

    async def read(_: Request) -> Response:
        messages = [message.as_json() for message in store.newest_first()]
        return JSONResponse(messages, headers={"Cache-Control": "no-store"})

    async def clear(_: Request) -> Response:
        store.clear()
        return Response(status_code=204)

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "healthy", "messages": store.count()})

    return Starlette(
        routes=[
            Route("/", page),
            Route("/messages", read),
            Route("/messages", clear, methods=["DELETE"]),
            Route("/_control/health", health),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ]
    )
