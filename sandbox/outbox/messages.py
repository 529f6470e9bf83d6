"""Parsed mails: recipients, subject, text and HTML bodies, and their links."""

import re
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from html.parser import HTMLParser

_URL = re.compile(r"https?://[^\s<>\"']+")


@dataclass(frozen=True)
class Message:
    """One mail; ``id`` is 0 until it is stored."""

    id: int
    time: datetime
    to: tuple[str, ...]
    subject: str
    text: str
    html: str

    @property
    def links(self) -> list[str]:
        """The distinct web links in the mail, in order."""
        finder = _Anchors()
        finder.feed(self.html)
        found = [*_URL.findall(self.text), *finder.found]
        return list(dict.fromkeys(found))

    def as_json(self) -> dict[str, object]:
        """Return the message as JSON for the API."""
        return {
            "id": str(self.id),
            "time": self.time.isoformat(timespec="milliseconds"),
            "to": ", ".join(self.to),
            "subject": self.subject,
            "text": self.text,
            "html": self.html,
            "links": self.links,
        }


def read(mail: EmailMessage, recipients: list[str], time: datetime) -> Message:
    """Parse *mail*, received for *recipients* at *time*."""
    return Message(
        id=0,
        time=time,
        to=tuple(recipients),
        subject=str(mail["subject"] or ""),
        text=_body(mail, "plain"),
        html=_body(mail, "html"),
    )


def _body(mail: EmailMessage, kind: str) -> str:
    part = mail.get_body((kind,))
    return "" if part is None else str(part.get_content())


class _Anchors(HTMLParser):
    """Collects the HTTP and HTTPS links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href") if tag == "a" else None
        if href and _URL.fullmatch(href):
            self.found.append(href)
