"""
The embedded telemetry console: an OTLP receiver, a SQLite store, web pages and a JSON API.

One thread writes to the store; readers use their own connections. Dropped telemetry is counted
and shown with the reason.
"""
