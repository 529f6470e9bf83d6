"""Server-rendered pages in French and English; they work without scripts."""
