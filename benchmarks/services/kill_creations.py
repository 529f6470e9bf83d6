"""
Creation of requests while replicas are killed: none lost, none duplicated; also without keys.

    python -m benchmarks.services.kill_creations [--seconds 60] [--users 20]

Two replicas share a SQLite store; every 1.5 s one of them gets SIGKILL and is started again.
Users create one request after the other and retry each until it succeeds. With a key the retry
finds the result of the killed attempt. The negative control sends no key: a client whose response
was lost then gets a conflict with its own request, and unreported records remain.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

from mesh.local.pki.certificate_authority import CertificateAuthority, issue_all
from tests.survey_svc.killing import run


async def main() -> None:
    """Run both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--users", type=int, default=20)
    given = parser.parse_args()
    print("| key | kills | creations completed | retries | lost | duplicated or unreported |")
    print("| --- | --- | --- | --- | --- | --- |")
    for keys in (True, False):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            issue_all(CertificateAuthority.create(), folder / "svids")
            outcome = await run(
                folder, folder / "svids", seconds=given.seconds, users=given.users, keys=keys
            )
        print(
            f"| {'yes' if keys else 'no'} | {outcome.kills} | {outcome.created} "
            f"| {outcome.repeats} | {outcome.lost} | {outcome.duplicated} |"
        )


if __name__ == "__main__":
    asyncio.run(main())
