"""The program that erases a user in the store."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import pytest

from survey_svc import erasure
from survey_svc.erasure import main
from survey_svc.ports import Reservation
from survey_svc.storage.sql_store import SqlStore

NOW = datetime(2026, 3, 1, 10, tzinfo=UTC)


async def _consent(url: str) -> None:
    store = await SqlStore.open(url)
    asked = Reservation("ada1", "r1", NOW, "h", NOW, "2026-01", NOW, "", "")
    await store.finish(asked, remember=timedelta())
    await store.close()


def test_program(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    renew_log: Callable[[ModuleType], None],
) -> None:
    """The program needs a confirmation, reports what it erased, and writes an audit line."""
    renew_log(erasure)
    url = f"sqlite+aiosqlite:///{tmp_path / 'survey.sqlite'}"
    monkeypatch.setenv("AMARRE_SURVEY_STORE", url)
    monkeypatch.setenv("AMARRE_SURVEY_REDCAP_URL", "http://127.0.0.1:1/api/")
    monkeypatch.setenv("AMARRE_SURVEY_REDCAP_TOKEN_FILE", str(tmp_path / "token"))
    asyncio.run(_consent(url))

    with pytest.raises(SystemExit):
        main(["ada1"])
    for consents in (1, 0):
        assert 0 == main(["ada1", "--yes"])
        audit, done = capsys.readouterr().out.splitlines()
        assert {"event": "user erased", "kind": "security", "consents": consents}.items() <= (
            json.loads(audit).items()
        )
        assert "ada1" not in audit
        assert f"Erased ada1 in Survey: reservations and {consents} consents." == done

    monkeypatch.setenv("AMARRE_SURVEY_STORE", "sqlite+aiosqlite:////nowhere/x.sqlite")
    assert 1 == main(["ada1", "--yes"])
    assert "Cannot open the store" in capsys.readouterr().err
