"""Configuration of the documentation site: ``make site`` builds it with Sphinx and MyST."""

import re
from importlib.metadata import version as version_of
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.logging import getLogger

DOCS = Path(__file__).resolve().parent
MERMAID = DOCS.parent / "tests/node/node_modules/mermaid/dist"
log = getLogger(__name__)

project = "AMARRE mesh"
author = "The AMARRE maintainers"
version = release = version_of("amarre-mesh")
extensions = ["myst_parser", "sphinxcontrib.mermaid"]
html_theme = "furo"
html_title = "AMARRE mesh"
html_copy_source = False
exclude_patterns = ["conf.py"]
# Pages link to headings as they do where the repository is browsed.
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
# Pages load nothing from elsewhere. Without the Mermaid that the tests install, diagrams are text.
html_static_path = [str(MERMAID)] if MERMAID.is_dir() else []
mermaid_use_local = "_static/mermaid.esm.min.mjs"


def setup(app: Sphinx) -> None:
    """Let pages link to files of the repository, which the site offers as downloads."""
    app.connect("source-read", _link_outside)


def _link_outside(app: Sphinx, page: str, source: list[str]) -> None:
    folder = (DOCS / page).parent

    def replaced(link: re.Match[str]) -> str:
        target = (folder / link[1]).resolve()
        if target.is_relative_to(DOCS):
            return link[0]
        if not target.is_file():
            log.warning("%s.md links to %s, which does not exist", page, link[1])
        return f"](path:{link[1]})"

    source[0] = re.sub(r"\]\((\.\./[^)#:]+)(?:#[^)]*)?\)", replaced, source[0])
