"""Study profiles that come with the service."""
