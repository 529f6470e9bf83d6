"""
The embedded telemetry console: OTLP in, one SQLite file behind, web pages and an API out.

One thread writes, readers have connections of their own, and whatever is not kept is counted
and shown with the reason.
"""
