"""A local replacement for Appwrite's magic-link sign-in, for tests and development.

It implements the calls that Auth and the official SDKs make, with the same paths, statuses, error
types, headers and visibility rules as the open-source server. State is kept in memory and lost
when it stops.
"""
