"""What happens to every call before and after its handler, in the order of ``pipeline.py``."""
