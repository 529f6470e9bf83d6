"""Inspection of PromQL expressions."""

import promql_parser


def series_in(expression: str) -> set[str]:
    """
    Return the names of the series in *expression*.

    Raises:
        ValueError: It is no PromQL.
    """
    found: set[str] = set()

    def visit(node: object) -> bool:
        if isinstance(node, promql_parser.MatrixSelector):
            node = node.vector_selector
        if isinstance(node, promql_parser.VectorSelector) and node.name:
            found.add(node.name)
        return True

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found
