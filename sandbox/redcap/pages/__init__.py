"""Web pages: surveys, and an overview of the data."""
