"""The rows of the comparison."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from tests.production.cluster.policy.xds import find


@dataclass(frozen=True)
class Row:
    """One value in both places; *expected* is the contract's, or the local Envoy's."""

    option: str
    where: str
    expected: Any
    istio: Any

    @property
    def same(self) -> bool:
        """Whether production matches the expectation."""
        return bool(self.expected == self.istio)


def seconds(value: Any) -> float:
    """Return a duration of JSON as a number."""
    return float(str(value or "0s").removesuffix("s"))


def first(node: Any, key: str) -> Any:
    return next(find(node, key), None)


def by_option(found: list[Row]) -> dict[str, list[Row]]:
    """Return *found* by option."""
    groups = defaultdict(list)
    for row in found:
        groups[row.option].append(row)
    return dict(groups)
