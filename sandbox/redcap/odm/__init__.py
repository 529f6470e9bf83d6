"""CDISC ODM with REDCap's extensions: project XML, and records as XML documents.

``design`` reads a project, ``records`` reads records, ``export`` writes them.
"""
