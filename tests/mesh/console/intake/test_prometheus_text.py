"""Prometheus's text format, as read from processes."""

from typing import Any

import pytest
from prometheus_client.openmetrics import parser

from mesh.console.intake import prometheus_text
from mesh.console.intake.prometheus_text import Tally


class TestExposition:
    def test_nonsense(self) -> None:
        """
        A response in another format is an error of its process, not of the console.
        """
        with pytest.raises(ValueError):
            prometheus_text.read("<html>no</html>", process="x", at=0)

    def test_unchanged_families(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        An unchanged family is not parsed again, and its points have the current time.
        """
        parsed, parse = list[str](), parser.text_string_to_metric_families

        def counted(text: str) -> Any:
            parsed.append(text.split()[2])
            return parse(text)  # type: ignore[no-untyped-call]

        monkeypatch.setattr(parser, "text_string_to_metric_families", counted)
        families: prometheus_text.Families = {}
        for users in (1, 1, 2):
            parsed.clear()
            text = (
                "# HELP python_x Not kept.\n# TYPE python_x gauge\npython_x 1.0\n"
                f"# HELP amarre_users .\n# TYPE amarre_users gauge\namarre_users {users}.0\n"
                "# HELP process_y .\n# TYPE process_y gauge\nprocess_y 1.0\n# EOF\n"
            )
            reading = prometheus_text.read(text, process="x", at=users, families=families)
            assert [("amarre_users", users, users), ("process_y", users, 1.0)] == [
                (point.name, point.at, point.value) for point in reading.points
            ]
        assert ["amarre_users"] == parsed
        assert 2 == len(families)

    def test_since(self) -> None:
        """
        The increase is the difference; after a restart it is the whole value.
        """
        before = Tally(10, 5.0, {"1": 8, "+Inf": 10})
        after = Tally(12, 6.0, {"1": 9, "+Inf": 12})

        assert Tally(2, 1.0, {"1": 1, "+Inf": 2}) == after.since(before)
        assert before == before.since(after)
        assert after == after.since(None)

    def test_redacted_labels(self) -> None:
        """
        Samples whose labels differ only in what is redacted are different series.
        """
        text = (
            "# TYPE amarre_sent counter\n"
            + "".join(f'amarre_sent_total{{email="{one}@example.org"}} 1\n' for one in "ab")
            + "# EOF\n"
        )
        points = prometheus_text.read(text, process="x", at=0).points

        assert 2 == len({point.labels for point in points})
        assert "example.org" not in str(points)
