"""The SQLite file: one writer thread, read-only connections, eviction."""
