"""The adapter to REDCap: its HTTP API, and the study's project on top of it.

Source:
    REDCap API, version 16.1.9.
"""
