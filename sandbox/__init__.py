"""The outside world in small: programs of their own that services know by URL only."""
