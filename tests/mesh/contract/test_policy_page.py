"""Every contract error has its section in docs/reference/policy.md."""

import re
from pathlib import Path

from mesh.contract import faults

PAGE = Path(__file__).parents[3] / "docs/reference/policy.md"


def test_every_number_has_its_section() -> None:
    """
    The numbers in the code are the headings of the page, each once and in order.
    """
    source = Path(faults.__file__).read_text()
    stated = sorted(set(re.findall(r'"(AM\d{3})"', source)))
    documented = re.findall(r"^### (AM\d{3})$", PAGE.read_text(), re.MULTILINE)

    assert stated == documented
