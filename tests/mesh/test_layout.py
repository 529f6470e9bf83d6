"""The tree stays one in which a file is found at the first guess (CONTRIBUTING)."""

from collections import Counter
from pathlib import Path

MOST = 14
TREES = (
    *("gateway", "auth_svc", "survey_svc", "health_svc", "mesh", "sandbox"),
    *("benchmarks", "protos/amarre", "tests"),
)


def test_folders() -> None:
    """
    No folder has more than 14 Python files or contracts directly in it.
    """
    files = (
        file for tree in TREES for end in ("*.py", "*.proto") for file in Path(tree).rglob(end)
    )
    sizes = Counter(str(file.parent) for file in files)

    assert len(sizes) > 60
    assert {} == {folder: size for folder, size in sizes.items() if size > MOST}
