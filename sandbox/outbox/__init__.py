"""A mail catcher: accepts every mail, delivers none, and shows them on a web page."""
