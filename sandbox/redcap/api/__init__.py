"""The API: one address, many operations, told apart by ``content`` and ``action``."""
