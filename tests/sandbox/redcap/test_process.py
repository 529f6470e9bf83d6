"""The program: start, startup errors, shutdown, crash recovery and concurrency."""

import asyncio
import contextlib
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from sandbox.redcap import config, setup
from sandbox.redcap.app import Sandbox
from sandbox.redcap.config import ConfigError
from sandbox.redcap.store import Store
from tests.sandbox.redcap.conftest import (
    ROOT,
    TOKEN,
    Api,
    Server,
    arguments,
    calls_to,
    free_port,
    start,
    stop,
)
from tests.sandbox.redcap.conftest import (
    config as configured,
)

QUICK_SECONDS = 1.5
DELAYED_ACKNOWLEDGEMENT_SECONDS = 0.04


def refusal(command: list[str], **environment: str) -> str:
    """Return the single error line of a sandbox that fails to start."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert 2 == done.returncode
    assert 1 == len(done.stderr.splitlines()), done.stderr
    return done.stderr


def call(server: Server, content: str, **params: str) -> httpx.Response:
    """A call to a sandbox process."""
    form = {"token": TOKEN, "content": content, "format": "json", **params}
    return httpx.post(server.api_url, data=form, timeout=60)


class TestRefusals:
    def test_production(self, tmp_path: Path) -> None:
        """It never starts in production."""
        message = refusal(arguments(tmp_path, free_port()), AMARRE_ENV="production")
        assert "does not run in production" in message
        assert not (tmp_path / "redcap.sqlite").exists()

    def test_port_in_use(self, tmp_path: Path) -> None:
        """The error names a port in use."""
        port = free_port()
        with socket.create_server(("127.0.0.1", port)):
            message = refusal(arguments(tmp_path, port))
        assert f"127.0.0.1:{port}" in message
        assert "choose another with --listen" in message

    @pytest.mark.parametrize("listen", ["3010", "127.0.0.1:0", "127.0.0.1:99999", "::1:3010"])
    def test_bad_address(self, tmp_path: Path, listen: str) -> None:
        """The error shows an invalid address."""
        command = arguments(tmp_path, 1)[3:]
        command[command.index("--listen") + 1] = listen
        with pytest.raises(ConfigError, match=f"'{re.escape(listen)}'"):
            config.read(command, {})

    def test_bad_files(self, tmp_path: Path) -> None:
        """The error names a missing or invalid token file, database or study."""
        command = arguments(tmp_path, 1)[3:]
        (tmp_path / "token").write_text("short")
        with pytest.raises(ConfigError, match="must contain 32 hexadecimal digits"):
            config.read(command, {})
        (tmp_path / "token").unlink()
        with pytest.raises(ConfigError, match=f"{tmp_path / 'token'} cannot be read"):
            config.read(command, {})
        (tmp_path / "token").write_text(TOKEN)
        study = tmp_path / "study.csv"
        settings = config.read([*command, "--study", str(study)], {})
        with pytest.raises(ConfigError, match=r"study\.csv cannot be read"):
            setup.open_store(settings)
        study.write_text("field_name,form_name\nBad Name,f\n")
        with pytest.raises(ConfigError, match="'Bad Name' is not valid"):
            setup.open_store(settings)
        for leftover in tmp_path.glob("redcap.sqlite*"):
            leftover.unlink()
        (tmp_path / "redcap.sqlite").write_text("no database " * 100)
        with pytest.raises(ConfigError, match="cannot be opened"):
            setup.open_store(settings)


class TestLife:
    def test_restarts(self, tmp_path: Path) -> None:
        """Records, links and projects survive SIGTERM and SIGKILL; shutdown is quick."""
        server = start(tmp_path)
        call(server, "record", data='[{"record_id": "1", "email": "ada@example.org"}]')
        link = call(server, "surveyLink", record="1", instrument="form").text
        began = time.monotonic()
        assert 0 == stop(server)
        assert time.monotonic() - began < QUICK_SECONDS

        server = start(tmp_path)
        logic = "[email] = 'ada@example.org'"
        rows = call(server, "record", fields="record_id", filterLogic=logic).json()
        assert [{"record_id": "1"}] == rows
        second = call(server, "surveyLink", record="1", instrument="form").text
        assert link.partition("?")[2] == second.partition("?")[2]
        assert 200 == call(server, "record", data='[{"record_id": "2"}]').status_code
        server.process.kill()
        server.process.wait()

        server = start(tmp_path)
        rows = call(server, "record", fields="record_id").json()
        assert ["1", "2"] == [row["record_id"] for row in rows]
        assert 0 == stop(server)

        lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
        calls = [(x["content"], x["action"]) for x in lines if x["event"] == "api call"]
        assert ("record", "import") == calls[0]
        assert 6 == len(calls)
        secrets = f"{TOKEN}|{'B' * 64}|ada@example.org"
        assert not re.search(secrets, (tmp_path / "log").read_text())

    async def test_hanging_calls_do_not_hold_it(self, tmp_path: Path) -> None:
        """A call that hangs on purpose does not delay shutdown."""
        server = start(tmp_path)
        async with httpx.AsyncClient() as http:
            await http.put(f"{server.url}/_control/faults", json={"mode": "hang"})
            hanging = asyncio.create_task(
                http.post(server.api_url, data={"content": "version"}, timeout=60)
            )
            done, _ = await asyncio.wait([hanging], timeout=0.3)
            assert not done
            assert 0 == await asyncio.to_thread(stop, server)
            await asyncio.gather(hanging, return_exceptions=True)
        # uvicorn cancels what is left after the grace period, and logs it.
        assert "Exception" not in (tmp_path / "log").read_text()

    async def test_hanging_calls_end(self, tmp_path: Path) -> None:
        """A call that hangs on purpose ends when the sandbox stops, without being cancelled."""
        stopping = asyncio.Event()
        store = setup.open_store(configured(tmp_path))
        app = Sandbox(store, base_url="http://sandbox.test", stopping=stopping).app()
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://sandbox.test") as http:
            await http.put("/_control/faults", json={"mode": "hang"})
            hanging = asyncio.create_task(http.post("/api/", data={"content": "version"}))
            done, _ = await asyncio.wait([hanging], timeout=0.3)
            assert not done
            stopping.set()
            async with asyncio.timeout(30):
                await asyncio.wait([hanging])
        store.close()

    async def test_own_study(self, tmp_path: Path) -> None:
        """Another dictionary creates another project with every instrument as a survey."""
        study = tmp_path / "health.csv"
        study.write_text("field_name,form_name,field_type\npid,visit,text\npain,visit,slider\n")
        store = setup.open_store(configured(tmp_path, study_file=study))
        async with calls_to(store) as api:
            await api.save({"pid": "1"})
            page = await api.http.get(await api.link("1", "visit"))
            assert 'data-survey="visit"' in page.text
            assert "health" == (await api.json("project"))["project_title"]
        store.close()


def test_short_answers_leave_at_once(server: Server) -> None:
    """No call waits for the kernel's delayed acknowledgement timer (40 ms)."""
    with httpx.Client() as http:
        durations = []
        for _ in range(20):
            began = time.perf_counter()
            http.post(server.api_url, data={"token": TOKEN, "content": "version"})
            durations.append(time.perf_counter() - began)
    assert min(durations) < DELAYED_ACKNOWLEDGEMENT_SECONDS


class TestManyAtOnce:
    async def test_writers(self, api: Api) -> None:
        """Concurrent imports lose nothing, even into one record."""
        fields = ["demandeur_nom", "demandeur_prenom", "userid", "email", "lien_reviewer"]
        rows = [{"record_id": str(n % 10), fields[n % 5]: f"x{n}@example.org"} for n in range(100)]
        await asyncio.gather(*(api.save(row) for row in rows))
        found = await api.export(fields=["record_id", *fields])
        assert 10 == len(found)
        assert all(any(row[name] for name in fields) for row in found)
        assert sum(bool(row[name]) for row in found for name in fields) == 10

    async def test_auto_numbers(self, api: Api) -> None:
        """Numbers assigned concurrently are all different."""
        params = {"forceAutoNumber": "true", "returnContent": "auto_ids"}
        answers = await asyncio.gather(
            *(api.save({"record_id": "new"}, **params) for _ in range(40))
        )
        assert 40 == len({answer[0] for answer in answers})

    async def test_links(self, api: Api) -> None:
        """Concurrent requests for a link return the same link."""
        await api.save({"record_id": "1"})
        links = await asyncio.gather(*(api.link("1", "form") for _ in range(20)))
        assert 1 == len(set(links))

    async def test_submissions(self, api: Api) -> None:
        """Of many concurrent submissions of one survey, exactly one is accepted."""
        await api.save({"record_id": "1"})
        link = await api.link("1", "validation_finale")
        pages = await asyncio.gather(*(api.http.post(link) for _ in range(10)))
        assert 1 == sum("validée" in page.text for page in pages)

    async def test_reader_sees_one_moment(self, api: Api, store: Store) -> None:
        """An export is a snapshot of the records at its start, despite concurrent writes."""
        await api.save(*({"record_id": str(n)} for n in range(50)))
        with store.reading() as db:
            before = db.execute("SELECT count(*) FROM record").fetchone()
            await api.save({"record_id": "late"})
            assert before == db.execute("SELECT count(*) FROM record").fetchone()

    async def test_two_servers_on_one_file(self, tmp_path: Path) -> None:
        """Two servers on one database see each other's records and designs."""
        stores = [setup.open_store(configured(tmp_path)) for _ in range(2)]
        async with calls_to(stores[0]) as first, calls_to(stores[1]) as second:
            await asyncio.gather(
                *(api.save({"record_id": f"{n}"}) for n in range(20) for api in (first, second))
            )
            assert 20 == len(await second.export(fields=["record_id"]))
            one = [{"field_name": "id", "form_name": "f"}, {"field_name": "a", "form_name": "f"}]
            assert 2 == await first.json("metadata", data=json.dumps(one))
            assert 2 == len(await second.json("metadata"))
        for store in stores:
            store.close()
        with contextlib.closing(sqlite3.connect(tmp_path / "redcap.sqlite")) as db:
            assert ("ok",) == db.execute("PRAGMA integrity_check").fetchone()


def test_help() -> None:
    """The command line has a help text."""
    done = subprocess.run(
        [sys.executable, "-m", "sandbox.redcap", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "--super-token-file" in done.stdout
