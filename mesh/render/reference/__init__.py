"""Reference pages that are not rendered from contracts alone."""
