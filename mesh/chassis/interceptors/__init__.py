"""Server interceptors around every handler, in the order of ``pipeline.py``."""
