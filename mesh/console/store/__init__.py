"""The SQLite store: one writer thread, read-only connections, eviction."""
