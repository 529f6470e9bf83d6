"""Deployment files for production, and offline checks of them."""
