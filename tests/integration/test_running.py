"""The output of ``amarre``, and what it leaves behind, on success and failure."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.researcher import Researcher
from tests.live import free_base, running

AMARRE = [sys.executable, "-m", "mesh.cli"]


def amarre(*arguments: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*AMARRE, *arguments], capture_output=True, text=True, timeout=60, check=False, **kwargs
    )


class TestRefusals:
    """One clear message, exit status 2, nothing left behind."""

    def test_port_in_use(self, tmp_path: Path) -> None:
        """A port in use is reported with its purpose and what to do; nothing was started."""
        base = free_base()
        with socket.create_server(("127.0.0.1", base + 2)):
            refused = amarre("up", "--port-base", str(base), "--data", str(tmp_path / "data"))

        assert 2 == refused.returncode
        assert f"{base + 2} needed by auth" in refused.stderr
        assert "--port-base" in refused.stderr
        assert not (tmp_path / "data").exists()

    def test_port_in_use_on_ipv6_only(self, tmp_path: Path) -> None:
        """
        A port that another program uses only on ::1 is rejected: browsers try ::1 first for
        ``localhost`` and would show that program at the printed URL.
        """
        base = free_base()
        with socket.create_server(("::1", base), family=socket.AF_INET6):
            refused = amarre("up", "--port-base", str(base), "--data", str(tmp_path / "data"))

        assert 2 == refused.returncode
        assert f"{base} needed by gateway" in refused.stderr

    def test_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        """An invalid data folder is reported with the option that chooses another."""
        (tmp_path / "file").write_text("in the way")

        refused = amarre("up", "--data", str(tmp_path / "file" / "data"))

        assert 2 == refused.returncode
        assert "cannot be written" in refused.stderr
        assert "--data" in refused.stderr

    def test_ready_file_that_cannot_be_written(self, tmp_path: Path) -> None:
        """A ready file in a missing folder is rejected before anything starts."""
        data = tmp_path / "data"
        refused = amarre(
            "up", "--data", str(data), "--ready-file", str(tmp_path / "absent" / "ready.json")
        )

        assert 2 == refused.returncode
        assert "cannot be written" in refused.stderr
        assert not data.exists()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--replicas", "redcap=2"], "auth, gateway, health, survey"),
            (["--replicas", "survey=many"], "write NAME=N"),
            (["--replicas", "survey=9"], "1 to 4"),
            (["--replicas", "gateway=2", "--direct"], "without --direct"),
            (["--port-base", "80"], "1024 to 32000"),
        ],
    )
    def test_options_that_cannot_be(
        self, tmp_path: Path, arguments: list[str], message: str
    ) -> None:
        """Invalid options are rejected with the valid ones."""
        refused = amarre("up", "--data", str(tmp_path), *arguments)

        assert 2 == refused.returncode
        assert message in refused.stderr

    def test_bad_setting(self, tmp_path: Path) -> None:
        """
        An invalid setting of one process stops the start with the variable's name; nothing remains.
        """
        base = free_base()
        refused = amarre(
            *("up", "--direct", "--port-base", str(base), "--data", str(tmp_path)),
            env=os.environ | {"AMARRE_DRAIN_TIMEOUT": "soon"},
        )

        assert 2 == refused.returncode
        assert "AMARRE_DRAIN_TIMEOUT holds 'soon'" in refused.stderr
        assert not (tmp_path / "ready.json").exists()
        with socket.create_server(("127.0.0.1", base + 10)):
            pass  # nobody holds the port any more

    def test_no_mesh(self, tmp_path: Path) -> None:
        """Commands that need a running mesh say how to start one."""
        for command in (["status"], ["call", "health.GetStatus"]):
            refused = amarre(*command, "--data", str(tmp_path))

            assert 2 == refused.returncode
            assert "make up" in refused.stderr


class TestCommands:
    """Commands on a running mesh."""

    def test_status(self, live: Any) -> None:
        """Every process is listed as ready."""
        told = amarre("status", "--data", data_of(live))

        assert 0 == told.returncode, told.stdout + told.stderr
        for name in ("gateway", "auth", "survey", "health", "redcap", "outbox"):
            assert name in told.stdout

    def test_call(self, live: Any) -> None:
        """A typed call returns JSON; healthy again soon after what other tests did to REDCap."""
        deadline = time.monotonic() + 60
        while True:
            answer = amarre("call", "health.GetStatus", "{}", "--data", data_of(live))
            status = json.loads(answer.stdout)["status"]["status"]
            if status == "HEALTH_STATUS_HEALTHY" or time.monotonic() > deadline:
                break
            time.sleep(0.5)

        assert "HEALTH_STATUS_HEALTHY" == status

    def test_call_that_the_contract_forbids(self, live: Any) -> None:
        """The error for a caller outside the contract names the policy that denied the call."""
        refused = amarre(
            "call", "survey.ListRequests", "{}", "--as", "health", "--data", data_of(live)
        )

        assert 2 == refused.returncode
        assert "PERMISSION_DENIED" in refused.stderr

    def test_call_with_unknown_field(self, live: Any) -> None:
        """A request that does not match the contract is rejected before it is sent."""
        refused = amarre("call", "survey.GetLink", '{"recrod": "1"}', "--data", data_of(live))

        assert 2 == refused.returncode
        assert "recrod" in refused.stderr

    def test_second_mesh_in_the_same_folder(self, live: Any) -> None:
        """A second mesh in the same folder is rejected, and the first continues."""
        refused = amarre("up", "--port-base", str(free_base()), "--data", data_of(live))

        assert 2 == refused.returncode
        assert "runs from" in refused.stderr
        # A probe gets one second, which the refused start may use up on a busy machine.
        tried = (amarre("status", "--data", data_of(live)) for _ in range(5))
        assert any(0 == one.returncode for one in tried)

    def test_certs_show(self, live: Any) -> None:
        """Every identity is shown."""
        shown = amarre("certs", "show", "--data", data_of(live))

        assert "spiffe://amarre.local/ns/amarre/sa/survey" in shown.stdout

    def test_identities_leave_and_come_back(self, live: Any, tmp_path: Path) -> None:
        """
        Users are exported with ids and addresses; a dry run of importing them changes nothing.
        """
        with Researcher(live, "moving@example.org") as person:
            person.sign_in()
            user = person.data("GET", "/api/v1/me")["id"]
        file = tmp_path / "users.jsonl"
        data = ("--data", data_of(live))

        left = amarre("identities", "export", str(file), *data)
        back = amarre("identities", "import", str(file), "--dry-run", *data)

        assert 0 == left.returncode, left.stderr
        users = [json.loads(line) for line in file.read_text().splitlines()]
        assert "moving@example.org" == {u["id"]: u["email"] for u in users}[user]
        assert 0 == back.returncode, back.stderr

    def test_erased_user(self, live: Any) -> None:
        """
        A confirmed erasure ends the session and removes the user, the consents and the
        reservations; without confirmation nothing happens.
        """
        with Researcher(live, "leaving@example.org") as person:
            person.sign_in()
            user = person.data("GET", "/api/v1/me")["id"]
            person.create()
            command = ("identities", "erase", "leaving@example.org", "--data", data_of(live))

            unconfirmed = amarre(*command)
            assert 200 == person.send("GET", "/api/v1/me").status_code
            erased = amarre(*command, "--yes")

            assert (1, 0) == (unconfirmed.returncode, erased.returncode), erased.stderr
            assert f"Would erase {user}" in unconfirmed.stderr
            assert f"Erased {user}: the user" in erased.stdout
            assert f"Erased {user} in Survey: reservations and 1 consents" in erased.stdout
            deadline = time.monotonic() + 10
            while person.send("GET", "/api/v1/me").status_code != 401:
                assert time.monotonic() < deadline
                time.sleep(0.2)

    def test_ready_file(self, live: Any) -> None:
        """The ready file has the fields of the design."""
        assert {"urls", "grpc", "processes", "sandbox", "console", "pki", "version"} == set(live)
        assert {"auth", "survey", "health"} == set(live["grpc"])
        for path in live["pki"].values():
            assert Path(path).is_file()


def test_killed_process_comes_back_and_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    """A killed service is replaced and the ready file has its new pid; Ctrl-C stops everything."""
    with running(tmp_path, "--direct") as ready:
        first = pid_of(ready, "survey")
        os.kill(first, signal.SIGKILL)
        file = tmp_path / "ready-here.json"
        deadline = time.monotonic() + 30
        while pid_of(now := json.loads(file.read_text()), "survey") in (first, 0):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        pids = [process["pid"] for process in now["processes"]]

    assert not file.exists()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def pid_of(ready: Any, name: str) -> int:
    return int(next(p["pid"] for p in ready["processes"] if p["name"] == name))


def data_of(live: Any) -> str:
    return str(Path(live["pki"]["ca"]).parents[2])
