"""REDCap's logic language: filters of exports, branching, calculations.

``parser`` turns text into a syntax tree, ``evaluate`` checks the tree against a
project and compiles it to a function of a row, ``functions`` defines the built-ins.
"""
