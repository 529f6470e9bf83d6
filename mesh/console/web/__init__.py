"""Pages and JSON API over HTTP: authentication, parameters, errors, control actions."""
