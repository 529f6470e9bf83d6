"""Rendering of templates."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sandbox.redcap.api.operation import Answer

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "form-action 'self'{elsewhere}; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""Headers that keep survey links and answers out of caches and referrers."""

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(template: str, *, status: int = 200, leads_to: str = "", **facts: Any) -> Answer:
    """Render a page.

    Args:
        template: Name of the template file.
        status: The HTTP status.
        leads_to: URL to which submitting its form may redirect; browsers apply the
            policy to redirects of forms too.
        **facts: Variables of the template.
    """
    body = _ENVIRONMENT.get_template(template).render(**facts)
    target = urlsplit(leads_to)
    elsewhere = f" {target.scheme}://{target.netloc}" if target.netloc else ""
    headers = {"Content-Security-Policy": _POLICY.format(elsewhere=elsewhere)} | SECURITY_HEADERS
    return Answer(body.encode(), "text/html; charset=utf-8", status, headers=headers)
