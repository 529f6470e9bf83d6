"""Administration of one account, with any identity provider."""

from collections.abc import AsyncIterator
from typing import Protocol

from auth_svc.ports import SECOND_FACTOR, User
from auth_svc.sessions.revocations import Revocations
from auth_svc.sign_in.passkeys import PasskeyStore

ACTIONS = {
    "block": "End the user's sessions and stop them from signing in.",
    "unblock": "Let a blocked user sign in again.",
    "end-sessions": "End all sessions of the user.",
    "forget-passkeys": "Remove the user's passkeys, sessions and second factor.",
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

    async def end_sessions(self, user_id: str) -> list[str]:
        """End all sessions of the user and return their ids."""
        ...

    async def set_label(self, user_id: str, label: str, *, on: bool) -> None:
        """Add *label* to the user, or remove it."""
        ...


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
