"""Every guarantee names tests that exist, and a figure."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reference/promises.md"
_TEST = re.compile(r"^\s*(?:async )?def test_|^class Test", re.MULTILINE)


class Guarantee(NamedTuple):
    """A row of the tables."""

    text: str
    tests: str
    figure: str


def guarantees(page: str) -> Iterator[Guarantee]:
    """Yield the rows of the tables of *page*."""
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| ") and cells[0] != "guarantee":
            yield Guarantee(*cells)


def faults(row: Guarantee) -> Iterator[str]:
    """Yield a sentence for each thing that *row* names and that does not exist."""
    if not row.figure:
        yield f"{row.text}: there is no figure"
    folder, content = ROOT, ""
    names = re.findall(r"`([^`]+)`", row.tests)
    if not names:
        yield f"{row.text}: names no test"
    for name in names:
        if name.startswith("python -m "):
            if importlib.util.find_spec(name.removeprefix("python -m ")) is None:
                yield f"{name} does not exist"
            continue
        if "/" in name or name.endswith(".py"):
            path = ROOT / name if "/" in name else folder / name
            files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
            if not path.exists():
                yield f"{path} does not exist"
                continue
            folder = path if path.is_dir() else path.parent
            content = "".join(file.read_text() for file in files)
            if not _TEST.search(content):
                yield f"{name} has no test"
        elif not re.search(rf"\b{re.escape(name)}\b", content):
            yield f"{name} is not in the file before it"


ROWS = list(guarantees(PAGE.read_text()))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.text[:60])
def test_guarantee(row: Guarantee) -> None:
    """The tests of a guarantee exist, and it has a figure or a bound."""
    assert not list(faults(row))


def test_not_guaranteed() -> None:
    """The page also says what is not guaranteed."""
    _, _, rest = PAGE.read_text().partition("\n## Not guaranteed\n")
    assert len(re.findall(r"^- \S.+\.$", rest, re.MULTILINE)) >= 5
    assert len(ROWS) >= 30


@pytest.mark.parametrize(
    ("tests", "figure", "fault"),
    [
        ("`tests/mesh/nowhere.py`", "1 s", "does not exist"),
        ("`tests/docs/test_promises.py`, `test_nowhere.py`", "1 s", "does not exist"),
        ("`tests/docs/test_promises.py` (`test_nothing_like_it`)", "1 s", "is not in the file"),
        ("`tests/conftest.py`", "1 s", "has no test"),
        ("`python -m benchmarks.nothing`", "1 s", "does not exist"),
        ("by hand", "1 s", "names no test"),
        ("`tests/docs/test_promises.py`", "", "there is no figure"),
    ],
)
def test_negative_control(tests: str, figure: str, fault: str) -> None:
    """A row that names something missing is found."""
    # In two parts: this file contains the names, too.
    tests = tests.replace("test_nothing_like_it", "test_nothing_" + "like_that")
    assert [each for each in faults(Guarantee("x", tests, figure)) if fault in each]
