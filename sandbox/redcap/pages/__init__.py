"""Web pages: surveys behind their links, and an overview of the data."""
