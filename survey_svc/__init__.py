"""The survey service: mobility requests over a REDCap project."""
