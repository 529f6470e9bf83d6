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
"""A survey link is a secret and its page shows answers: nothing leaks, nothing stays."""

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(template: str, *, status: int = 200, leads_to: str = "", **facts: Any) -> Answer:
    """Draw a page.

    Args:
        template: Its file.
        status: The HTTP status.
        leads_to: The address to which its form may in the end be redirected;
            browsers hold redirections of forms against the policy as well.
        **facts: What the template shows.
    """
    body = _ENVIRONMENT.get_template(template).render(**facts)
    target = urlsplit(leads_to)
    elsewhere = f" {target.scheme}://{target.netloc}" if target.netloc else ""
    headers = {"Content-Security-Policy": _POLICY.format(elsewhere=elsewhere)} | SECURITY_HEADERS
    return Answer(body.encode(), "text/html; charset=utf-8", status, headers=headers)
