"""Administration of one account, with any identity provider."""

from collections.abc import AsyncIterator
from typing import Protocol

import structlog

from auth_svc.ports import SECOND_FACTOR, User
from auth_svc.sessions.revocations import Revocations
from auth_svc.sign_in.passkeys import PasskeyStore
from mesh.chassis.telemetry import names, pseudonym

log = structlog.get_logger("identities")

ACTIONS = {
    "block": "End the user's sessions and stop them from signing in.",
    "unblock": "Let a blocked user sign in again.",
    "end-sessions": "End all sessions of the user.",
    "forget-passkeys": "Remove the user's passkeys, sessions and second factor.",
    "erase": "Delete the user, sessions, passkeys and links. This cannot be undone.",
}


class IdentitiesError(Exception):
    """The operation is impossible; the message says why and what to do."""


class Roster(Protocol):
    """An identity provider whose users can be listed and changed."""

    def users(self) -> AsyncIterator[User]:
        """Yield all users."""
        ...

    async def add_user(self, user: User) -> None:
        """Add a user with this id, address, labels and blocked state."""
        ...

    async def block(self, user_id: str, *, on: bool) -> list[str]:
        """Block the user and return the ids of the sessions that end, or unblock them."""
        ...

    async def remove_user(self, user_id: str) -> list[str]:
        """Remove the user with their sessions and return the ids of these; idempotent."""
        ...

    async def end_sessions(self, user_id: str) -> list[str]:
        """End all sessions of the user and return their ids."""
        ...

    async def set_label(self, user_id: str, label: str, *, on: bool) -> None:
        """Add *label* to the user, or remove it."""
        ...


class Erasure(Protocol):
    """What Auth stores of users besides its identity provider."""

    async def erase(self, user_id: str) -> None:
        """Delete the user's passkeys and links; idempotent."""
        ...


async def erasable(wanted: str, roster: Roster, *, yes: bool) -> str:
    """Return the id of the user to erase; also the id of one who is erased already.

    Raises:
        IdentitiesError: No user matches, or *yes* is missing.
    """
    try:
        user_id = (await find(wanted, roster)).id
    except IdentitiesError:
        if not yes or "@" in wanted:
            raise
        return wanted
    if not yes:
        raise IdentitiesError(f"Would erase {user_id}, which cannot be undone; add --yes to do so.")
    return user_id


async def erase(user_id: str, roster: Roster, erasure: Erasure, revocations: Revocations) -> str:
    """Erase a user and return a sentence that states the result.

    The user comes last: after a failure, the command can be run again with the same id or address.
    """
    await erasure.erase(user_id)
    await revocations.revoke(await roster.remove_user(user_id))
    log.info("user erased", user=pseudonym(user_id), kind=names.KIND_SECURITY)
    return f"Erased {user_id}: the user, sessions, passkeys and links."


async def find(wanted: str, roster: Roster) -> User:
    """Return the user whose id or address is *wanted*.

    Raises:
        IdentitiesError: No user matches.
    """
    async for user in roster.users():
        if user.id == wanted or user.email == wanted.lower():
            return user
    raise IdentitiesError("No user has this id or address.")


async def act(
    action: str,
    user: User,
    roster: Roster,
    passkeys: PasskeyStore,
    revocations: Revocations,
) -> str:
    """Apply *action* to *user* and return a sentence that states the result."""
    match action:
        case "block":
            await revocations.revoke(await roster.block(user.id, on=True))
            return f"{user.id} is blocked and has no sessions."
        case "unblock":
            await roster.block(user.id, on=False)
            return f"{user.id} may sign in."
        case "end-sessions":
            await revocations.revoke(await roster.end_sessions(user.id))
            return f"{user.id} has no sessions and may sign in."
        case _:
            known = await passkeys.of_user(user.id)
            for passkey in known:
                await passkeys.remove(user.id, passkey.id)
            await roster.set_label(user.id, SECOND_FACTOR, on=False)
            await revocations.revoke(await roster.end_sessions(user.id))
            return f"Removed {len(known)} passkeys of {user.id}; a mailed link signs in."
