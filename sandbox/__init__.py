"""Local replacements of external systems; services know them by URL only."""
