"""Sanitized HTML of study texts.

Labels and instructions may contain some HTML tags; other tags are removed and their text is kept.
"""

from html import unescape

import nh3
from markupsafe import Markup

_TAGS = {"a", "p", "br", "b", "strong", "i", "em", "u", "ul", "ol", "li"}
_TAGS |= {"h2", "h3", "h4", "sub", "sup", "small"}
_CLEANER = nh3.Cleaner(
    tags=_TAGS,
    attributes={"a": {"href"}},
    url_schemes={"http", "https", "mailto"},
    link_rel=None,
)
_TEXT = nh3.Cleaner(tags=set())


def safe(html: str) -> Markup:
    """Return *html* with only safe tags; the only attribute kept is the href of links."""
    return Markup(_CLEANER.clean(html))  # noqa: S704 - nh3 is the sanitizer


def plain(html: str) -> str:
    """Return *html* as plain text."""
    return unescape(_TEXT.clean(html)).strip()
