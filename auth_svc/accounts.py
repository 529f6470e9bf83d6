"""What operators do to one account, with any provider of identities."""

from collections.abc import AsyncIterator
from typing import Protocol

from auth_svc.passkeys import PasskeyStore
from auth_svc.ports import SECOND_FACTOR, User

ACTIONS = {
    "block": "End the user's sessions and let them sign in no more.",
    "unblock": "Let a blocked user sign in again.",
    "end-sessions": "End all sessions of the user.",
    "forget-passkeys": "Forget the user's passkeys, sessions and choice of a second factor.",
}


class IdentitiesError(Exception):
    """Nothing can be done to these users; the message says why and what to do."""


class Roster(Protocol):
    """A provider whose users can be read and added to."""

    def users(self) -> AsyncIterator[User]:
        """Yield all users."""
        ...

    async def add_user(self, user: User) -> None:
        """Add a user with this id, address and labels, blocked or not."""
        ...

    async def block(self, user_id: str, *, on: bool) -> None:
        """Keep the user out, whose sessions end, or let them in again."""
        ...

    async def end_sessions(self, user_id: str) -> None:
        """End all sessions of the user."""
        ...

    async def set_label(self, user_id: str, label: str, *, on: bool) -> None:
        """Give the user *label*, or take it away."""
        ...


async def find(wanted: str, roster: Roster) -> User:
    """
    Return the user whose id or address is *wanted*.

    Raises:
        IdentitiesError: There is none.
    """
    async for user in roster.users():
        if user.id == wanted or user.email == wanted.lower():
            return user
    raise IdentitiesError("There is no user with this id or address.")


async def act(action: str, user: User, roster: Roster, passkeys: PasskeyStore) -> str:
    """Do what an operator asks for; returns what is so from now on."""
    match action:
        case "block":
            await roster.block(user.id, on=True)
            return f"{user.id} is blocked and has no session."
        case "unblock":
            await roster.block(user.id, on=False)
            return f"{user.id} may sign in."
        case "end-sessions":
            await roster.end_sessions(user.id)
            return f"{user.id} has no session and may sign in."
        case _:
            known = await passkeys.of_user(user.id)
            for passkey in known:
                await passkeys.remove(user.id, passkey.id)
            await roster.set_label(user.id, SECOND_FACTOR, on=False)
            await roster.end_sessions(user.id)
            return f"{len(known)} passkeys of {user.id} are forgotten; a mailed link signs in."
