"""``python -m survey_svc.erasure USER --yes``: deletes what the store has of a user.

USER is an id: reservations, remembered responses and consents are deleted. Run it after the study
has removed the user's records in REDCap, whose consents these are, and after the user is erased in
Auth.
"""

import argparse
import asyncio
import sys

import structlog

from mesh.chassis import config
from mesh.chassis.errors import MeshError
from mesh.chassis.server import START_FAULTS
from mesh.chassis.telemetry import names, pseudonym
from mesh.chassis.telemetry.logs import configure_logs
from mesh.chassis.telemetry.pseudonym import load_key
from survey_svc.config import SurveySettings
from survey_svc.storage.selection import open_store

log = structlog.get_logger("erasure")

ERRORS: tuple[type[Exception], ...] = (MeshError, *START_FAULTS)


async def _erase(settings: SurveySettings, user: str) -> int:
    load_key(settings.pseudonym_key_file)
    store = await open_store(settings.survey_store)
    try:
        consents = await store.erase(user)
    finally:
        await store.close()
    log.info("user erased", user=pseudonym(user), consents=consents, kind=names.KIND_SECURITY)
    return consents


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m survey_svc.erasure",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("user", metavar="USER", help="the user's id")
    parser.add_argument("--yes", action="store_true", required=True, help="confirm; required")
    found = parser.parse_args(arguments)
    settings = config.load_or_exit(SurveySettings)
    configure_logs("survey", "erasure", settings.log_level)
    try:
        consents = asyncio.run(_erase(settings, found.user))
    except ERRORS as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1
    sys.stdout.write(f"Erased {found.user} in Survey: reservations and {consents} consents.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
