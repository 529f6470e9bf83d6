"""Stores and caches: SQL, Redis and memory."""
