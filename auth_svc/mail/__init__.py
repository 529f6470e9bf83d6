"""The sign-in mail, its templates, and the queue that sends it over SMTP."""
