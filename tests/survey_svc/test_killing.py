"""Replicas are killed while users create; `benchmarks.services.kill_creations` is the long run."""

from pathlib import Path

from tests.survey_svc.killing import run


class TestKills:
    async def test_with_keys(self, svids: Path, tmp_path: Path) -> None:
        """With keys and retries, every creation succeeds, and none is lost or duplicated."""
        outcome = await run(tmp_path, svids, seconds=9, users=8, keys=True)

        assert 3 <= outcome.kills
        assert 8 <= outcome.created
        assert 0 < outcome.repeats
        assert (0, 0) == (outcome.lost, outcome.duplicated)
