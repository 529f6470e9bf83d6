"""The outbox as a program: mails arrive over SMTP and are read over HTTP."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTPUTF8
from pathlib import Path
from types import SimpleNamespace

import aiosmtplib
import httpx
import pytest

from mesh.chassis.testing import free_port
from sandbox.outbox.messages import Message
from sandbox.outbox.smtp import Sink
from sandbox.outbox.store import MOST_MESSAGES, Store
from tests.mesh.local.conftest import disk, fill

START_SECONDS = 60.0


class Outbox:
    """A running outbox."""

    def __init__(self, folder: Path) -> None:
        self.http, self.smtp = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.http}"
        self.process = start(self.http, self.smtp, folder / "outbox.db")

    def wait(self) -> None:
        ends = time.monotonic() + START_SECONDS
        while time.monotonic() < ends:
            try:
                if httpx.get(f"{self.url}/_control/health", trust_env=False).is_success:
                    return
            except httpx.TransportError:
                assert self.process.poll() is None
        raise AssertionError("the outbox did not start")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(START_SECONDS)


def start(http: int, smtp: int, database: Path, **env: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sandbox.outbox", "--database", str(database)]
    command += ["--http", f"127.0.0.1:{http}", "--smtp", f"127.0.0.1:{smtp}"]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "AMARRE_ENV": "", **env},
    )


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    running = Outbox(tmp_path)
    try:
        running.wait()
        yield running
    finally:
        running.process.kill()
        running.process.communicate()


def a_mail(subject: str = "Hello", to: str = "ada@example.org") -> EmailMessage:
    mail = EmailMessage(policy=SMTPUTF8)
    mail["From"], mail["To"], mail["Subject"] = "us@example.org", to, subject
    mail.set_content("Go to http://localhost:3000/login?userId=ab&secret=cd now")
    mail.add_alternative(
        '<p><a href="http://localhost:3000/login?userId=ab&amp;secret=cd">Go</a>'
        ' <a href="javascript:alert(1)">no</a></p>',
        subtype="html",
    )
    return mail


def messages(outbox: Outbox) -> list[dict[str, object]]:
    found: list[dict[str, object]] = httpx.get(f"{outbox.url}/messages", trust_env=False).json()
    return found


class TestOutbox:
    async def test_a_mail_is_shown(self, outbox: Outbox) -> None:
        """A mail received over SMTP is listed with its bodies, and with each link once."""
        await aiosmtplib.send(a_mail("Été"), hostname="127.0.0.1", port=outbox.smtp)

        (message,) = messages(outbox)
        assert {"id", "time", "to", "subject", "text", "html", "links"} == set(message)
        assert ("ada@example.org", "Été") == (message["to"], message["subject"])
        assert ["http://localhost:3000/login?userId=ab&secret=cd"] == message["links"]
        assert "Go to" in str(message["text"])
        assert "<a href" in str(message["html"])

    async def test_lines(self, outbox: Outbox) -> None:
        """Every line of the log is one JSON object."""
        await aiosmtplib.send(a_mail(), hostname="127.0.0.1", port=outbox.smtp)
        outbox.process.terminate()
        lines = [json.loads(line) for line in outbox.process.communicate()[0].splitlines()]

        assert ["mail stored"] == [line["event"] for line in lines]
        assert {"level", "timestamp"} <= set(lines[0])

    async def test_newest_first(self, outbox: Outbox) -> None:
        """The newest mail is first."""
        for subject in ("one", "two"):
            await aiosmtplib.send(a_mail(subject), hostname="127.0.0.1", port=outbox.smtp)

        assert ["two", "one"] == [message["subject"] for message in messages(outbox)]

    async def test_the_page_shows_mail_html_without_running_it(self, outbox: Outbox) -> None:
        """The page escapes the mails' text and runs none of their scripts."""
        mail = a_mail("<script>alert(1)</script>")
        await aiosmtplib.send(mail, hostname="127.0.0.1", port=outbox.smtp)

        page = httpx.get(outbox.url, trust_env=False)
        assert 200 == page.status_code
        assert "<script>alert" not in page.text
        assert 'sandbox=""' in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]

    async def test_messages_can_be_forgotten(self, outbox: Outbox) -> None:
        """DELETE empties the list."""
        await aiosmtplib.send(a_mail(), hostname="127.0.0.1", port=outbox.smtp)

        assert 204 == httpx.delete(f"{outbox.url}/messages", trust_env=False).status_code
        assert [] == messages(outbox)

    async def test_too_large_a_mail_is_refused(self, outbox: Outbox) -> None:
        """A mail over 1 MiB is rejected during transfer."""
        mail = a_mail()
        mail.clear_content()
        mail.set_content("x" * 70 + "\n" + ("y" * 70 + "\n") * 20_000)

        with pytest.raises(aiosmtplib.SMTPException):
            await aiosmtplib.send(mail, hostname="127.0.0.1", port=outbox.smtp)
        assert [] == messages(outbox)

    async def test_mails_outlive_a_restart(self, outbox: Outbox, tmp_path: Path) -> None:
        """SIGTERM stops the program with exit code 0; stored mails are there after a restart."""
        await aiosmtplib.send(a_mail("kept"), hostname="127.0.0.1", port=outbox.smtp)
        assert 0 == await asyncio.to_thread(outbox.stop)

        again = Outbox(tmp_path)
        try:
            again.wait()
            assert ["kept"] == [message["subject"] for message in messages(again)]
        finally:
            again.process.kill()
            again.process.communicate()


class TestErrors:
    def test_production(self, tmp_path: Path) -> None:
        """It does not start in production and reports why in one sentence."""
        process = start(free_port(), free_port(), tmp_path / "o.db", AMARRE_ENV="production")

        assert "it must not run in production" in process.communicate()[1]
        assert 2 == process.returncode

    @pytest.mark.parametrize("option", ["http", "smtp"])
    def test_port_in_use(self, option: str, tmp_path: Path) -> None:
        """The error for a port in use names the option that set it."""
        with socket.create_server(("127.0.0.1", free_port())) as taken:
            ports = {"http": free_port(), "smtp": free_port(), option: taken.getsockname()[1]}
            process = start(ports["http"], ports["smtp"], tmp_path / "o.db")
            (line,) = process.communicate()[1].splitlines()

        assert f"--{option} 127.0.0.1:{ports[option]}" in line
        assert 2 == process.returncode

    @pytest.mark.parametrize("port", [0, 65_536])
    def test_bad_port(self, port: int, tmp_path: Path) -> None:
        """An invalid port is rejected."""
        process = start(port, free_port(), tmp_path / "o.db")

        assert "is not HOST:PORT" in process.communicate()[1]
        assert 2 == process.returncode

    def test_file_that_cannot_be_written(self, tmp_path: Path) -> None:
        """The error for a missing folder names the file."""
        process = start(free_port(), free_port(), tmp_path / "no" / "o.db")

        assert "--database" in process.communicate()[1]
        assert 2 == process.returncode


async def test_full_disk(tmp_path: Path) -> None:
    """While the disk is full a mail gets a temporary error (452); later it is accepted."""
    envelope = SimpleNamespace(content=a_mail().as_bytes(), rcpt_tos=["ada@example.org"])
    with (
        disk(tmp_path / "disk", "128k") as folder,
        contextlib.closing(Store(folder / "outbox.db")) as store,
    ):
        sink = Sink(store)
        filler = fill(folder)
        answers = [await sink.handle_DATA(None, None, envelope) for _ in range(60)]
        filler.unlink()
        after = await sink.handle_DATA(None, None, envelope)

    codes = {answer[:3] for answer in answers}
    assert "452" in codes
    assert codes <= {"250", "452"}
    assert after.startswith("250")


def test_the_store_is_bounded(tmp_path: Path) -> None:
    """Beyond a thousand messages the oldest are deleted."""
    store = Store(tmp_path / "o.db")
    for number in range(MOST_MESSAGES + 5):
        store.add(Message(0, datetime.now(UTC), ("a@example.org",), str(number), "", ""))

    kept = store.newest_first()
    store.close()
    assert MOST_MESSAGES == len(kept)
    assert ("1004", "5") == (kept[0].subject, kept[-1].subject)
