"""A stand-in for Appwrite's sign-in by magic link: for tests and local trials.

It answers the calls that Auth makes, and those of the official SDKs for the same purpose, as the
open-source server does: paths, statuses, error types, headers, what is hidden from whom. What it
knows is gone when it stops.
"""
