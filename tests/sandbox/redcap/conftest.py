"""An in-process sandbox for most tests; a real one for clients with their own HTTP stack."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandbox.redcap.app import Sandbox
from sandbox.redcap.config import Config
from sandbox.redcap.design import study_files as study
from sandbox.redcap.setup import open_store
from sandbox.redcap.store import Store

TOKEN = "A" * 32
SUPER_TOKEN = "B" * 64
ROOT = Path(__file__).parents[3]
READY_SECONDS = 20
TYPES = [
    {"field_name": "id", "form_name": "all", "field_label": "Name, please"},
    {"field_name": "note", "form_name": "all", "field_type": "notes"},
    {"field_name": "n", "form_name": "all",
     "text_validation_type_or_show_slider_number": "number"},
    {"field_name": "i", "form_name": "all",
     "text_validation_type_or_show_slider_number": "integer"},
    {"field_name": "day", "form_name": "all",
     "text_validation_type_or_show_slider_number": "date_dmy"},
    {"field_name": "at", "form_name": "all", "text_validation_type_or_show_slider_number": "time"},
    {"field_name": "mail", "form_name": "all",
     "text_validation_type_or_show_slider_number": "email"},
    {"field_name": "yes", "form_name": "all", "field_type": "yesno", "field_label": "Yes?"},
    {"field_name": "pick", "form_name": "all", "field_type": "dropdown",
     "select_choices_or_calculations": "1, One, or so | b-2, Two"},
    {"field_name": "box", "form_name": "all", "field_type": "checkbox", "field_label": "Box",
     "select_choices_or_calculations": "1, One | B-2, Two"},
    {"field_name": "doc", "form_name": "all", "field_type": "file"},
    {"field_name": "text", "form_name": "all", "field_type": "descriptive"},
    {"field_name": "twice", "form_name": "more", "field_type": "calc",
     "select_choices_or_calculations": "[n] * 2"},
]  # fmt: skip


@dataclass
class Api:
    """Calls to one project."""

    http: httpx.AsyncClient
    token: str = TOKEN

    async def post(self, content: str, **params: Any) -> httpx.Response:
        """Make a call; lists become ``name[0]``, ``name[1]``; a token given here has precedence."""
        form: dict[str, str] = {"token": self.token, "content": content}
        for name, value in params.items():
            if isinstance(value, list):
                form |= {f"{name}[{number}]": str(item) for number, item in enumerate(value)}
            else:
                form[name] = value if isinstance(value, str) else json.dumps(value)
        return await self.http.post("/api/", data=form)

    async def json(self, content: str, **params: Any) -> Any:
        """The JSON response of a call that must succeed."""
        answer = await self.post(content, format="json", **params)
        assert 200 == answer.status_code, answer.text
        return answer.json()

    async def text(self, content: str, **params: Any) -> str:
        """The response text of a call that must succeed."""
        answer = await self.post(content, **params)
        assert 200 == answer.status_code, answer.text
        return answer.text

    async def error(self, content: str, *, status: int = 400, **params: Any) -> str:
        """The error message of a call that must fail."""
        answer = await self.post(content, **{"format": "json", "returnFormat": "json", **params})
        assert status == answer.status_code, answer.text
        message: str = answer.json()["error"]
        return message

    async def save(self, *rows: dict[str, Any], **params: Any) -> Any:
        """Import rows and return the response."""
        data = json.dumps(list(rows))
        return await self.json("record", action="import", data=data, **params)

    async def export(self, **params: Any) -> list[dict[str, Any]]:
        """Export records as JSON."""
        rows: list[dict[str, Any]] = await self.json("record", **params)
        return rows

    async def link(self, record: str, instrument: str, **params: Any) -> str:
        """Path and query of a survey link."""
        url = await self.text("surveyLink", record=record, instrument=instrument, **params)
        return url.removeprefix("http://sandbox.test")

    async def create(self, odm: str = "", **settings: Any) -> "Api":
        """Create a project and return calls to it."""
        data = json.dumps([{"project_title": "Test", "purpose": 0, **settings}])
        answer = await self.post("project", token=SUPER_TOKEN, format="json", data=data, odm=odm)
        assert 200 == answer.status_code, answer.text
        return Api(self.http, answer.text[-32:])


def config(folder: Path, *, study_file: Path = study.AMARRE) -> Config:
    """A configuration with its database in *folder*."""
    return Config(
        host="127.0.0.1",
        port=1,
        database=folder / "redcap.sqlite",
        token=TOKEN,
        super_token=SUPER_TOKEN,
        base_url="http://sandbox.test",
        study=study_file,
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """The storage of a fresh sandbox."""
    opened = open_store(config(tmp_path))
    yield opened
    opened.close()


@asynccontextmanager
async def calls_to(store: Store) -> AsyncIterator[Api]:
    """Calls to the first project of an in-process sandbox."""
    sandbox = Sandbox(store, base_url="http://sandbox.test", stopping=asyncio.Event())
    transport = httpx.ASGITransport(app=sandbox.app())
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox.test") as http:
        yield Api(http)


@pytest.fixture
async def api(store: Store) -> AsyncIterator[Api]:
    """Calls to the AMARRE project of a fresh sandbox."""
    async with calls_to(store) as calls:
        yield calls


@pytest.fixture
async def types(api: Api) -> Api:
    """A project with one field of every type."""
    made = await api.create(surveys_enabled=1)
    assert 13 == await made.json("metadata", data=json.dumps(TYPES))
    return made


@dataclass(frozen=True)
class Server:
    """A sandbox in its own process."""

    url: str
    process: subprocess.Popen[str]

    @property
    def api_url(self) -> str:
        """The address of its API."""
        return f"{self.url}/api/"


def free_port() -> int:
    """Return an unused port below the ephemeral range."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise RuntimeError("No free port.")


def arguments(folder: Path, port: int) -> list[str]:
    """The command line of a sandbox with its files in *folder*."""
    (folder / "token").write_text(TOKEN)
    (folder / "super").write_text(SUPER_TOKEN)
    return [
        sys.executable, "-m", "sandbox.redcap", "--listen", f"127.0.0.1:{port}",
        "--database", str(folder / "redcap.sqlite"), "--token-file", str(folder / "token"),
        "--super-token-file", str(folder / "super"),
    ]  # fmt: skip


def start(folder: Path) -> Server:
    """Start a sandbox and wait until it responds."""
    port = free_port()
    log = (folder / "log").open("a")
    process = subprocess.Popen(arguments(folder, port), cwd=ROOT, stdout=log, text=True)
    log.close()
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/_control/health").json() == {"status": "ok"}:
                return Server(url, process)
        except httpx.TransportError:
            assert process.poll() is None, "the sandbox ended while starting"
    process.kill()
    raise TimeoutError("The sandbox did not answer.")


def stop(server: Server) -> int:
    """Stop a sandbox and return its exit code."""
    server.process.terminate()
    return server.process.wait(timeout=READY_SECONDS)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One sandbox process shared by all tests that need one."""
    running = start(tmp_path_factory.mktemp("sandbox"))
    yield running
    stop(running)


def state_of(page: str) -> str:
    """Return the state of a survey page: open, completed, closed, saved, code, unknown."""
    match = re.search(r'data-state="(\w+)"', page)
    assert match is not None, page
    return match.group(1)


@pytest.fixture
async def link(api: Api) -> str:
    """The link of the form of one record."""
    await api.save({"record_id": "r1", "userid": "u1", "email": "ada@example.org"})
    return await api.link("r1", "form")
