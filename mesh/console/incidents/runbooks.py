"""Serves the runbooks as pages of the console."""

import html
import re
from importlib import resources
from pathlib import Path

from markdown_it import MarkdownIt

PATH = "/runbooks"
_PACKAGE = Path(str(resources.files("mesh")))
_PACKAGED = _PACKAGE / "console" / "runbooks"
# A wheel contains docs/runbooks as package data; a checkout has the folder itself.
FOLDER = _PACKAGED if _PACKAGED.is_dir() else _PACKAGE.parent / "docs" / "runbooks"
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
_ACTION = re.compile(r"`amarre (restart|canary abort|fault clear|certs rotate)\b")
_NAME = re.compile(r"[A-Za-z][A-Za-z-]*\.md")


def page(name: str) -> str | None:
    """Return the runbook *name* (``service-down.md``) as HTML; None if it does not exist."""
    if not _NAME.fullmatch(name) or not (file := FOLDER / name).is_file():
        return None
    return f'<article class="prose">{_MARKDOWN.render(file.read_text())}</article>'


def actions(name: str) -> list[str]:
    """Return the control actions that the runbook *name* mentions, in order."""
    if not _NAME.fullmatch(name) or not (file := FOLDER / name).is_file():
        return []
    return list(dict.fromkeys(_ACTION.findall(file.read_text())))


def link(url: str) -> str:
    """
    Return the address of an alert's runbook: ours if we have the page, else its ``runbook_url``.

    Empty for schemes that a browser must not follow: alert labels are untrusted.
    """
    return _local(url.rpartition("/")[2]) or (url if re.match(r"https?://", url) else "")


def _local(name: str) -> str:
    return f"{PATH}/{name}" if _NAME.fullmatch(name) and (FOLDER / name).is_file() else ""


def whole(shell: str, name: str) -> str | None:
    """Return the page template *shell* with the runbook *name*; None if it does not exist."""
    found = page(name)
    if found is None:
        return None
    main = '<main id="main" tabindex="-1" aria-live="off">'
    at = f'{main[:-1]} data-path="{html.escape(f"{PATH}/{name}")}">'
    return shell.replace(main, at + found)
