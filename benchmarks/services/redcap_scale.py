"""
REDCap sandbox with many records: time and memory of import and export.

Run ``python -m benchmarks.services.redcap_scale --records 50000``. It starts a
sandbox on a free port, imports records in batches, exports them as a stream and prints
the time taken. Memory is the resident set of the sandbox's process.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

BATCH = 500
TOKEN = "A" * 32
MIB = 2**20


@dataclass
class Memory:
    """The maximum resident set of a process while it is watched."""

    process: psutil.Process
    peak_bytes: int = 0
    _done: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Sample every 20 ms for as long as the block runs."""
        self.peak_bytes = self.process.memory_info().rss
        self._done.clear()
        sampler = threading.Thread(target=self._sample)
        sampler.start()
        try:
            yield
        finally:
            self._done.set()
            sampler.join()

    def _sample(self) -> None:
        while not self._done.wait(0.02):
            self.peak_bytes = max(self.peak_bytes, self.process.memory_info().rss)


def record(number: int) -> dict[str, str]:
    """Return one request as the application and a researcher would fill it in."""
    return {
        "record_id": str(number),
        "created_at": "2026-11-22T10:00:00Z",
        "userid": f"user-{number // 3}",
        "email": f"user{number // 3}@example.org",
        "contact_complete": "1",
        "demandeur_nom": "Lovelace",
        "demandeur_prenom": "Ada",
        "demandeur_statut": str(1 + number % 5),
        "demandeur_laboratoire": str(1 + number % 12),
        "laboratoire_directeur_courriel": "labo@example.org",
        "mobilite_type": "2",
        "mobilite_destination_categorie": "2",
        "mobilite_universite_gu8": "11",
        "mobilite_duree_jours": "30",
        "mobilite_dates_envisagees": "Printemps, de mars à mai, dates à préciser",
        "mobilite_objectifs_scientifiques": "Étudier l'estuaire. " * 20,
        "form_complete": "2",
    }


def free_port() -> int:
    """Return a port below the ephemeral range."""
    for port in range(21_000, 32_000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise RuntimeError("No free port.")


@contextmanager
def sandbox(folder: Path) -> Iterator[tuple[httpx.Client, psutil.Process]]:
    """A sandbox process with its database in *folder*."""
    (folder / "token").write_text(TOKEN)
    (folder / "super").write_text("B" * 64)
    port = free_port()
    command = [
        sys.executable, "-m", "sandbox.redcap", "--listen", f"127.0.0.1:{port}",
        "--database", str(folder / "db.sqlite"), "--token-file", str(folder / "token"),
        "--super-token-file", str(folder / "super"),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ})
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as http:
            _wait(http)
            yield http, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(timeout=10)


def _wait(http: httpx.Client) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            http.get("/_control/health")
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError("The sandbox did not respond.")


def call(http: httpx.Client, **params: str) -> httpx.Response:
    """One API call that must succeed."""
    answer = http.post("/api/", data={"token": TOKEN, "format": "json", **params})
    answer.raise_for_status()
    return answer


def fill(http: httpx.Client, records: int) -> None:
    """Import *records* in batches."""
    for begin in range(1, records + 1, BATCH):
        rows = [record(n) for n in range(begin, min(begin + BATCH, records + 1))]
        call(http, content="record", action="import", data=json.dumps(rows))


def export(http: httpx.Client, shape: str) -> tuple[int, float, float]:
    """Export everything as a stream; return bytes, and seconds to the first and last byte."""
    form = {"token": TOKEN, "content": "record", "format": shape}
    begin = time.perf_counter()
    first, size = 0.0, 0
    with http.stream("POST", "/api/", data=form) as answer:
        for chunk in answer.iter_bytes():
            first = first or time.perf_counter() - begin
            size += len(chunk)
    return size, first, time.perf_counter() - begin


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=50_000)
    records = parser.parse_args().records
    with tempfile.TemporaryDirectory() as name, sandbox(Path(name)) as (http, process):
        memory = Memory(process)
        idle = process.memory_info().rss
        print(f"idle {idle / MIB:.0f} MiB")
        begin = time.perf_counter()
        with memory.watched():
            fill(http, records)
        seconds = time.perf_counter() - begin
        print(
            f"import {records} records in batches of {BATCH}: {seconds:.1f} s, "
            f"{records / seconds:.0f}/s, peak {memory.peak_bytes / MIB:.0f} MiB"
        )
        for shape in ("json", "csv"):
            with memory.watched():
                size, first, last = export(http, shape)
            print(
                f"export {shape}: {size / MIB:.0f} MiB, first byte {1000 * first:.0f} ms, "
                f"whole {last:.1f} s, peak {memory.peak_bytes / MIB:.0f} MiB"
            )
        begin = time.perf_counter()
        logic = f'[userid] = "user-{records // 6}"'
        found = call(http, content="record", fields="record_id,userid", filterLogic=logic).json()
        milliseconds = 1000 * (time.perf_counter() - begin)
        print(f"export by userid: {len(found)} of {records} records, {milliseconds:.0f} ms")
        begin = time.perf_counter()
        call(http, content="participantList", instrument="form")
        print(f"participantList: {time.perf_counter() - begin:.1f} s")


if __name__ == "__main__":
    main()
