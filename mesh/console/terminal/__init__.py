"""The console in a terminal: API client, commands, tables."""
