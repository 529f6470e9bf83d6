"""The API: one URL; ``content`` and ``action`` select the operation."""
