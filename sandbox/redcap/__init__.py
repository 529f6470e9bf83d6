"""REDCap-compatible sandbox server: projects, records and surveys in one SQLite file.

Start it with ``python -m sandbox.redcap``. It imports no other package of the
project and none imports it: clients know it by URL only, as with REDCap itself.
"""

VERSION = "16.1.9"
"""The REDCap version whose behaviour this server reproduces."""
