"""Transfer of users between identity providers, as a file of JSON lines."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from auth_svc.identities.administration import IdentitiesError, Roster
from auth_svc.ports import APPLICANT, User

MAX_LISTED_CONFLICTS = 20
"""How many conflicts an error lists."""


@dataclass(frozen=True)
class ImportPlan:
    """What an import would change."""

    new: tuple[User, ...]
    known: int
    conflicts: tuple[str, ...]


async def export_users(file: Path, roster: Roster) -> int:
    """Write all users to *file* atomically, readable only by its owner; return their number."""
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


async def plan_import(users: Iterable[User], roster: Roster) -> ImportPlan:
    """Compare *users* with the users that the provider has."""
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
            conflicts.append(f"id {user.id} exists with another address")
        else:
            conflicts.append(f"the address of id {user.id} exists with another id")
    return ImportPlan(tuple(new), known, tuple(conflicts))


async def apply_plan(plan: ImportPlan, roster: Roster) -> None:
    """Add the new users of *plan*; after a failure, run it again to add the rest."""
    if plan.conflicts:
        named = "\n".join(f"  {conflict}" for conflict in plan.conflicts[:MAX_LISTED_CONFLICTS])
        raise IdentitiesError(
            f"{len(plan.conflicts)} users are in conflict; nothing was imported:\n{named}"
        )
    for user in plan.new:
        await roster.add_user(user)


def read_users(file: Path) -> list[User]:
    """Return the users in *file*.

    Raises:
        IdentitiesError: The file cannot be read, or a line is not a valid user.
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
        raise IdentitiesError(f"{where} is not a JSON object with id and email.") from exc
    good = isinstance(user_id, str) and 0 < len(user_id) <= 36 and isinstance(email, str)
    if not (good and "@" in email and isinstance(labels, list) and isinstance(blocked, bool)):
        raise IdentitiesError(f"{where} has an invalid id, email, labels or blocked.")
    return User(user_id, email.lower(), tuple(str(label) for label in labels), blocked)


def _as_json(user: User) -> dict[str, object]:
    shown: dict[str, object] = {"id": user.id, "email": user.email, "labels": list(user.labels)}
    return {**shown, "blocked": True} if user.blocked else shown
