"""
``python -m auth_svc.identities``: users from provider to provider, and what operators do to one.

``export|import FILE [--dry-run]``: the file holds one JSON object per line: ``id``, ``email``,
``labels`` and, where true, ``blocked``. Sessions, links and passkeys stay behind: everybody signs
in once more.

``block|unblock|end-sessions|forget-passkeys USER``: USER is an id or an address. Who is blocked
has no session and gets none. To forget passkeys, for who lost them, also ends the user's sessions
and the choice to be asked for one.

It works on the provider that the settings of Auth choose; running services follow within 5 s.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from auth_svc.accounts import ACTIONS, IdentitiesError, Roster, act, find
from auth_svc.config import AuthSettings
from auth_svc.database import Database
from auth_svc.passkey_store import SqlPasskeys
from auth_svc.ports import APPLICANT, User
from auth_svc.providers import provider
from mesh.chassis import config
from mesh.chassis.errors import MeshError
from mesh.chassis.server import START_FAULTS

MOVES = {
    "export": "Write all users to FILE.",
    "import": "Add the users of FILE that are not known.",
}
MOST_NAMED = 20
"""How many conflicts are told one by one."""
FAULTS: tuple[type[Exception], ...] = (IdentitiesError, MeshError, *START_FAULTS)


@dataclass(frozen=True)
class Plan:
    """What an import would do."""

    new: tuple[User, ...]
    known: int
    conflicts: tuple[str, ...]


async def export_to(file: Path, roster: Roster) -> int:
    """Write all users to *file*, in one step, readable by this user alone; returns how many."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    count = 0
    try:
        draft.touch(mode=0o600, exist_ok=False)
        with draft.open("w", encoding="utf-8") as lines:
            async for user in roster.users():
                lines.write(f"{json.dumps(_as_json(user), ensure_ascii=False)}\n")
                count += 1
        draft.replace(file)
    except OSError as exc:
        raise IdentitiesError(f"{file} cannot be written: {exc.strerror}.") from exc
    finally:
        draft.unlink(missing_ok=True)
    return count


async def plan_import(users: Iterable[User], roster: Roster) -> Plan:
    """Compare *users* with those that the provider has."""
    by_id: dict[str, User] = {}
    by_email: dict[str, User] = {}
    async for user in roster.users():
        by_id[user.id] = by_email[user.email] = user
    new, known, conflicts = [], 0, []
    for user in users:
        same_id, same_email = by_id.get(user.id), by_email.get(user.email)
        if same_id is None and same_email is None:
            new.append(user)
            by_id[user.id] = by_email[user.email] = user
        elif same_id is same_email:
            known += 1
        elif same_id is not None:
            conflicts.append(f"id {user.id} has another address there")
        else:
            conflicts.append(f"the address of id {user.id} has another id there")
    return Plan(tuple(new), known, tuple(conflicts))


async def carry_out(plan: Plan, roster: Roster) -> None:
    """Add the new users of *plan*; what was added before a failure is known the next time."""
    if plan.conflicts:
        named = "\n".join(f"  {conflict}" for conflict in plan.conflicts[:MOST_NAMED])
        raise IdentitiesError(
            f"{len(plan.conflicts)} users are in conflict, so that nothing was imported:\n{named}"
        )
    for user in plan.new:
        await roster.add_user(user)


def read(file: Path) -> list[User]:
    """
    Return the users in *file*.

    Raises:
        IdentitiesError: The file cannot be read, or a line is no user; its number is told.
    """
    try:
        text = file.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as exc:
        raise IdentitiesError(f"{file} cannot be read: {exc}.") from exc
    lines = text.split("\n") if text else []
    return [_parse(line, f"{file}:{number}") for number, line in enumerate(lines, 1)]


def _parse(line: str, where: str) -> User:
    try:
        found = json.loads(line)
        user_id, email, labels = found["id"], found["email"], found.get("labels", [APPLICANT])
        blocked = found.get("blocked", False)
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise IdentitiesError(f"{where} is no user: it needs id and email as JSON.") from exc
    good = isinstance(user_id, str) and 0 < len(user_id) <= 36 and isinstance(email, str)
    if not (good and "@" in email and isinstance(labels, list) and isinstance(blocked, bool)):
        raise IdentitiesError(f"{where} is no user: id, email, labels or blocked cannot be used.")
    return User(user_id, email.lower(), tuple(str(label) for label in labels), blocked)


def _as_json(user: User) -> dict[str, object]:
    told: dict[str, object] = {"id": user.id, "email": user.email, "labels": list(user.labels)}
    return {**told, "blocked": True} if user.blocked else told


async def _run(arguments: argparse.Namespace, settings: AuthSettings) -> str:
    async with aclosing(Database(settings.auth_database)) as database:
        await database.migrate()
        async with provider(settings, database) as roster:
            if arguments.action in ACTIONS:
                user = await find(arguments.user, roster)
                return await act(arguments.action, user, roster, SqlPasskeys(database))
            if arguments.action == "export":
                count = await export_to(arguments.file, roster)
                return f"{count} users of {settings.auth_provider} are in {arguments.file}."
            plan = await plan_import(read(arguments.file), roster)
            if arguments.dry_run:
                return (
                    f"{len(plan.new)} users would be new in {settings.auth_provider}, {plan.known}"
                    f" are known, {len(plan.conflicts)} are in conflict. Nothing was changed."
                )
            await carry_out(plan, roster)
            missing = await plan_import(read(arguments.file), roster)
            if missing.new or missing.conflicts:
                raise IdentitiesError(f"{len(missing.new)} users are still missing; import again.")
            return f"{len(plan.new)} users are new in {settings.auth_provider}, {plan.known} known."


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m auth_svc.identities",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, sentence in MOVES.items():
        move = actions.add_parser(name, help=sentence, description=sentence)
        move.add_argument("file", type=Path, metavar="FILE")
        if name == "import":
            move.add_argument("--dry-run", action="store_true", help="only say what it would do")
    for name, sentence in ACTIONS.items():
        action = actions.add_parser(name, help=sentence, description=sentence)
        action.add_argument("user", metavar="USER", help="the user's id or address")
    found = parser.parse_args(arguments)
    settings = config.load_or_exit(AuthSettings)
    try:
        sys.stdout.write(f"{asyncio.run(_run(found, settings))}\n")
    except FAULTS as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
