"""A project's design: dictionary, events, settings and rights."""
