"""The console in a terminal: API client, commands and tables."""
