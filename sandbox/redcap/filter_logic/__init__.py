"""REDCap's logic language: filters of exports, branching, calculations.

``parser`` turns text into a tree, ``checks`` holds the tree against a project,
``evaluate`` computes it for one row, ``functions`` is what logic may call.
"""
