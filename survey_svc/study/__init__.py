"""The study being served: its profile and its REDCap data dictionary."""
