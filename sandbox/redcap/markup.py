"""
Text of a study as safe HTML.

Designers may write a little HTML into labels and instructions. What is not in
the list below loses its tags and keeps its text.
"""

from html import escape
from html.parser import HTMLParser

from markupsafe import Markup

_TAGS = frozenset(
    [
        "p",
        "br",
        "b",
        "strong",
        "i",
        "em",
        "u",
        "ul",
        "ol",
        "li",
        "h2",
        "h3",
        "h4",
        "sub",
        "sup",
        "small",
    ]
)
_DROPPED = frozenset({"script", "style"})


def safe(html: str) -> Markup:
    """*html* reduced to harmless tags without attributes; links keep their address."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return Markup("".join(reader.out))  # noqa: S704 - everything in it was escaped below


def plain(html: str) -> str:
    """*html* as text."""
    reader = _Reader(tags=frozenset())
    reader.feed(html)
    reader.close()
    return str(Markup("".join(reader.out)).unescape()).strip()  # noqa: S704 - as above


class _Reader(HTMLParser):
    def __init__(self, tags: frozenset[str] = _TAGS) -> None:
        super().__init__(convert_charrefs=True)
        self.out: list[str] = []
        self._tags = tags
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _DROPPED:
            self._silent += 1
        elif tag in self._tags:
            self.out.append(f"<{tag}>")
        elif tag == "a" and self._tags:
            href = dict(attrs).get("href") or ""
            web = href if href.startswith(("http://", "https://", "mailto:")) else ""
            self.out.append(f'<a href="{escape(web)}">')

    def handle_endtag(self, tag: str) -> None:
        if tag in _DROPPED:
            self._silent = max(0, self._silent - 1)
        elif (tag in self._tags and tag != "br") or (tag == "a" and self._tags):
            self.out.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.out.append(escape(data))
