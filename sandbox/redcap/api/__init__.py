"""The API: one URL, many operations, selected by ``content`` and ``action``."""
