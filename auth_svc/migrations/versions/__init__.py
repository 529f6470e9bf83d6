"""One module per migration, ordered by number."""
