"""Pages and JSON API: authentication, parameters, errors, control actions."""
