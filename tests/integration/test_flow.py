"""A researcher goes the whole way through a running mesh."""

from typing import Any

import pytest

from tests.integration.researcher import whole_way


@pytest.mark.xdist_group("live")
def test_whole_way(live: Any) -> None:
    """
    From sign-up to a finished request with two opinions, its data, its PDF and sign-out.
    """
    whole_way(live, "ada@example.org")
