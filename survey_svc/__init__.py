"""The survey service: mobility requests in a REDCap project."""
