"""
Export benchmark: time, size, and memory above idle for many records.

    python -m benchmarks.services.export_data [--records 10000]

The service runs as a separate process, so that its memory can be read while it streams.
"""

import argparse
import asyncio
import contextlib
import tempfile
import time
from pathlib import Path

import psutil
from amarre.survey.v1 import survey_service_pb2 as messages
from amarre.survey.v1.survey_service_pb2_grpc import SurveyServiceStub

from mesh.chassis import tokens
from mesh.chassis.call import User
from mesh.chassis.testing import connected
from mesh.local.pki.certificate_authority import CertificateAuthority, issue_all
from tests.survey_svc.killing import GATEWAY, Replicas, key_set
from tests.survey_svc.sandbox import Sandbox

USER = "bench"
BATCH = 500
MIB = 2**20
TEXT = "Un projet de recherche commun sur les estuaires. " * 6


def seed(sandbox: Sandbox, count: int) -> None:
    """Store *count* filled requests of one user."""
    answers = {
        "demandeur_statut": "1",
        "demandeur_nom": "Lovelace",
        "mobilite_type": "1",
        "invitation_type": "3",
        "invite_nom": "Grace Hopper",
        "invitation_projet_recherche": TEXT,
        "invitation_interet_laboratoire": TEXT,
        "form_complete": "2",
    }
    for start in range(0, count, BATCH):
        ids = range(start, min(start + BATCH, count))
        sandbox.save(*({"record_id": f"x{n:06}", "userid": USER} | answers for n in ids))


async def watch_memory(process: psutil.Process, peak: list[int]) -> None:
    """Keep the maximum resident set in *peak*."""
    while True:
        peak[0] = max(peak[0], process.memory_info().rss)
        await asyncio.sleep(0.01)


async def main() -> None:
    """Create records, export them in both formats, print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=10_000)
    given = parser.parse_args()
    key = tokens.SigningKey.generate()
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        issue_all(CertificateAuthority.create(), folder / "svids")
        sandbox = stack.enter_context(Sandbox(folder))
        url = stack.enter_context(key_set(key))
        replicas = Replicas(folder, folder / "svids", sandbox, url)
        stack.push_async_callback(replicas.stop)
        port = replicas.ports[0]
        await replicas.start(port)
        seed(sandbox, given.records)
        stub = await stack.enter_async_context(
            connected("survey", port, folder / "svids" / "gateway", SurveyServiceStub)
        )
        process = psutil.Process(replicas.pid(port))
        print("| format | records | MiB | seconds | MiB above idle |")
        print("| --- | --- | --- | --- | --- |")
        for form in ("json", "csv"):
            user = User(USER, "s", "ada@example.org")
            token, _ = tokens.mint(key, user, audience="survey", caller=GATEWAY)
            idle = process.memory_info().rss
            peak = [idle]
            watching = asyncio.create_task(watch_memory(process, peak))
            started = time.perf_counter()
            stream = stub.ExportData(
                messages.ExportDataRequest(format=form),
                metadata=(("authorization", f"Bearer {token}"),),
                wait_for_ready=True,
            )
            size = 0
            async for answer in stream:
                size += len(answer.chunk.data)
            took = time.perf_counter() - started
            watching.cancel()
            print(
                f"| {form} | {given.records} | {size / MIB:.1f} | {took:.1f} "
                f"| {(peak[0] - idle) / MIB:.1f} |"
            )


if __name__ == "__main__":
    asyncio.run(main())
