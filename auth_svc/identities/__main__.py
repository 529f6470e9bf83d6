"""``python -m auth_svc.identities``: transfer users between providers and administer accounts.

``export|import FILE [--dry-run]``: the file holds one JSON object per line with ``id``, ``email``,
``labels`` and, if true, ``blocked``. Sessions, links and passkeys are not transferred: every user
signs in again.

``block|unblock|end-sessions|forget-passkeys|erase USER``: USER is an id or an address. A blocked
user has no session and cannot open one. ``forget-passkeys``, for a user who lost them, also ends
the user's sessions and turns the second factor off. ``erase`` needs ``--yes``; reservations and
consents are erased in Survey, by ``python -m survey_svc.erasure``.

The commands act on the provider that Auth's settings choose; running services follow within 5 s.
"""

import argparse
import asyncio
import sys
from contextlib import aclosing
from pathlib import Path

from auth_svc.config import AuthSettings
from auth_svc.identities.administration import ACTIONS, IdentitiesError, act, erasable, erase, find
from auth_svc.identities.transfer import apply_plan, export_users, plan_import, read_users
from auth_svc.providers.selection import provider, utc_now
from auth_svc.sessions.revocations import Revocations
from auth_svc.storage.database import Database
from auth_svc.storage.erasure import SqlErasure
from auth_svc.storage.passkeys import SqlPasskeys
from auth_svc.storage.revocations import SqlRevocations
from mesh.chassis import config
from mesh.chassis.errors import MeshError
from mesh.chassis.server import START_FAULTS
from mesh.chassis.telemetry.logs import configure_logs
from mesh.chassis.telemetry.pseudonym import load_key

TRANSFERS = {
    "export": "Write all users to FILE.",
    "import": "Add the users in FILE that do not exist yet.",
}
ERRORS: tuple[type[Exception], ...] = (IdentitiesError, MeshError, *START_FAULTS)


async def _run(arguments: argparse.Namespace, settings: AuthSettings) -> str:
    async with aclosing(Database(settings.auth_database)) as database:
        await database.migrate()
        async with provider(settings, database) as roster:
            if arguments.action in ACTIONS:
                revocations = Revocations(SqlRevocations(database), utc_now)
                if arguments.action == "erase":
                    user_id = await erasable(arguments.user, roster, yes=arguments.yes)
                    return await erase(user_id, roster, SqlErasure(database), revocations)
                user = await find(arguments.user, roster)
                passkeys = SqlPasskeys(database)
                return await act(arguments.action, user, roster, passkeys, revocations)
            if arguments.action == "export":
                count = await export_users(arguments.file, roster)
                return f"Exported {_users(count)} of {settings.auth_provider} to {arguments.file}."
            plan = await plan_import(read_users(arguments.file), roster)
            if arguments.dry_run:
                return (
                    f"Would add {_users(len(plan.new))} to {settings.auth_provider};"
                    f" {plan.known} exist already, {len(plan.conflicts)} are in conflict."
                    " Nothing was changed."
                )
            await apply_plan(plan, roster)
            missing = await plan_import(read_users(arguments.file), roster)
            if missing.new or missing.conflicts:
                raise IdentitiesError(f"Missing: {_users(len(missing.new))}; run the import again.")
            return (
                f"Added {_users(len(plan.new))} to {settings.auth_provider}; {plan.known} existed."
            )


def _users(count: int) -> str:
    return "1 user" if count == 1 else f"{count} users"


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m auth_svc.identities",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, sentence in TRANSFERS.items():
        move = actions.add_parser(name, help=sentence, description=sentence)
        move.add_argument("file", type=Path, metavar="FILE")
        if name == "import":
            move.add_argument("--dry-run", action="store_true", help="change nothing")
    for name, sentence in ACTIONS.items():
        action = actions.add_parser(name, help=sentence, description=sentence)
        action.add_argument("user", metavar="USER", help="the user's id or address")
        if name == "erase":
            action.add_argument("--yes", action="store_true", help="do it; otherwise name the user")
    found = parser.parse_args(arguments)
    settings = config.load_or_exit(AuthSettings)
    configure_logs("auth", "identities", settings.log_level)
    try:
        load_key(settings.pseudonym_key_file)
        sys.stdout.write(f"{asyncio.run(_run(found, settings))}\n")
    except ERRORS as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
