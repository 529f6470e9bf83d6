"""The checker detects each violation, each with a history that violates one rule."""

import pytest

from tests.chaos.history import Fault, History, Operation, violations

CREATED = Operation("ada", "create", 0, 1, 200, ("7",))
LISTED = Operation("ada", "list", 2, 3, 200, ("7",))
KILLED = Fault("kill survey", 1, 1, 2)


def found(*operations: Operation, stored: tuple[str, ...] = ("7",), fault: Fault = KILLED) -> str:
    history = History(list(operations), [fault])
    return " ".join(violations(history, stored, deadline_seconds=5, recovery_seconds=5))


def test_correct_history() -> None:
    """
    Failures, retries that return the same request, and lists before the end of a creation are
    valid.
    """
    failed = Operation("ada", "create", 0, 1, 503)
    broken = Operation("ada", "create", 0, 1, 0)
    early = Operation("ada", "list", 0.5, 2, 200)

    assert "" == found(failed, broken, early, CREATED, CREATED, LISTED)


@pytest.mark.parametrize(
    ("sentence", "history"),
    [
        ("REDCap does not hold", {"operations": [CREATED], "stored": ()}),
        ("did not see 7", {"operations": [CREATED, Operation("ada", "list", 2, 3, 200)]}),
        (
            "told of 2 requests",
            {
                "operations": [CREATED, Operation("ada", "create", 2, 3, 200, ("8",))],
                "stored": ("7", "8"),
            },
        ),
        ("nobody was told", {"operations": [CREATED], "stored": ("7", "8")}),
        ("took 6.0 s", {"operations": [CREATED, Operation("ada", "list", 2, 8, 504)]}),
        ("did not succeed again", {"operations": [CREATED], "fault": Fault("kill", 1, 2)}),
        ("only 6.0 s after", {"operations": [CREATED], "fault": Fault("kill", 1, 2, 8)}),
    ],
    ids=["lost", "not listed", "two answers", "twice", "late", "no recovery", "slow recovery"],
)
def test_broken_rule(sentence: str, history: dict[str, object]) -> None:
    """Each violated rule is reported."""
    operations = history.pop("operations")

    assert sentence in found(*operations, **history)  # type: ignore[misc, arg-type]
