"""Configuration of the documentation site: ``make site`` builds it with Sphinx and MyST."""

from importlib.metadata import version as version_of

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
# The pages load nothing from elsewhere: Mermaid is the one that the tests draw diagrams with.
mermaid_use_local = "_static/mermaid.min.js"
