"""Rules of passkeys: registration by signed-in users, and signing in with one.

The authenticator must verify the user (by fingerprint, face or PIN), so a passkey is two factors:
possession, and biometrics or knowledge.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

import structlog
import webauthn
from webauthn.helpers import bytes_to_base64url
from webauthn.helpers.parse_authentication_credential_json import (
    parse_authentication_credential_json,
)
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from auth_svc.errors import InvalidCredentialsError
from auth_svc.metrics import OPENED_BY_PASSKEY
from auth_svc.ports import SECOND_FACTOR, Clock, Directory, OpenedSession
from auth_svc.sign_in.rate_limits import RateLimits
from mesh.chassis.errors import (
    ConflictError,
    InvalidRequestError,
    SecondFactorRequiredError,
    Violation,
)
from mesh.chassis.telemetry import names, pseudonym

log = structlog.get_logger("passkeys")

T = TypeVar("T")
MAX_PASSKEYS = 20
CEREMONY_LIFETIME = timedelta(minutes=5)
ANY_USER = ""
"""The user of a sign-in ceremony, which is not known yet."""


@dataclass(frozen=True)
class RelyingParty:
    """The relying party: the domain to which passkeys are bound, and the allowed origins."""

    id: str
    origins: tuple[str, ...]
    name: str = "AMARRE"


@dataclass(frozen=True)
class Passkey:
    """The public key of a passkey; ``id`` is the credential id in base64url."""

    id: str
    user_id: str
    public_key: bytes = field(repr=False)
    sign_count: int
    name: str = field(repr=False)
    created_at: datetime
    used_at: datetime | None = None


@dataclass(frozen=True)
class Ceremony:
    """One attempt to register or use a passkey; its challenge works once."""

    id: str
    user_id: str
    challenge: bytes = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True)
class StartedCeremony:
    """The options with which the browser continues a ceremony."""

    ceremony_id: str
    options_json: str = field(repr=False)


class PasskeyStore(Protocol):
    """Stores passkeys and ceremonies."""

    async def put_ceremony(self, ceremony: Ceremony) -> None:
        """Store a ceremony."""
        ...

    async def take_ceremony(self, ceremony_id: str, *, now: datetime) -> Ceremony | None:
        """Consume a ceremony that has not expired."""
        ...

    async def add(self, passkey: Passkey, *, most: int) -> bool:
        """Store a passkey; return False if the user has *most*, or the id exists."""
        ...

    async def of_user(self, user_id: str) -> list[Passkey]:
        """Return the user's passkeys, newest first."""
        ...

    async def find(self, passkey_id: str) -> Passkey | None:
        """Return a passkey by its id."""
        ...

    async def use(self, passkey: Passkey, *, sign_count: int, now: datetime) -> bool:
        """Record a use; return False if another one was recorded since *passkey* was read."""
        ...

    async def remove(self, user_id: str, passkey_id: str) -> None:
        """Remove a passkey of the user; does nothing if it does not exist."""
        ...


class Passkeys:
    """Registers passkeys and opens sessions with them."""

    def __init__(
        self,
        party: RelyingParty,
        clock: Clock,
        *,
        store: PasskeyStore,
        directory: Directory,
        limits: RateLimits,
    ) -> None:
        self._party = party
        self._clock = clock
        self._store = store
        self._directory = directory
        self._limits = limits

    async def begin(self, user_id: str, email: str, *, partial: bool = False) -> StartedCeremony:
        """Start the registration of a passkey for a signed-in user.

        Raises:
            SecondFactorRequiredError: The session is *partial*, and the user has a passkey:
                a link alone must not be enough to register another one.
        """
        known = await self._store.of_user(user_id)
        if partial and known:
            raise SecondFactorRequiredError
        ceremony = await self._begin(user_id)
        options = webauthn.generate_registration_options(
            rp_id=self._party.id,
            rp_name=self._party.name,
            user_id=user_id.encode(),
            user_name=email,
            challenge=ceremony.challenge,
            timeout=int(CEREMONY_LIFETIME.total_seconds() * 1000),
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.REQUIRED,
                user_verification=UserVerificationRequirement.REQUIRED,
            ),
            exclude_credentials=[
                PublicKeyCredentialDescriptor(id=webauthn.base64url_to_bytes(one.id))
                for one in known
            ],
        )
        return StartedCeremony(ceremony.id, webauthn.options_to_json(options))

    async def add(
        self, user_id: str, ceremony_id: str, answer: str, *, name: str, partial: bool = False
    ) -> Passkey:
        """Store the passkey that the browser created.

        Raises:
            SecondFactorRequiredError: As `begin`.
            InvalidRequestError: The response does not match the ceremony, which is consumed anyway.
            ConflictError: The user has the maximum number of passkeys, or this one exists.
        """
        now = self._clock()
        ceremony = await self._store.take_ceremony(ceremony_id, now=now)
        if ceremony is None or ceremony.user_id != user_id:
            raise _unfit("ceremony_id", "it is unknown, used or expired; start again")
        made = _checked(
            lambda: webauthn.verify_registration_response(
                credential=answer,
                expected_challenge=ceremony.challenge,
                expected_rp_id=self._party.id,
                expected_origin=list(self._party.origins),
                require_user_verification=True,
            )
        )
        if made is None:
            raise _unfit("credential_json", "it does not match the challenge")
        passkey = Passkey(
            bytes_to_base64url(made.credential_id),
            user_id,
            made.credential_public_key,
            made.sign_count,
            name,
            now,
        )
        # With only one factor, the user may register the first passkey and no other.
        if not await self._store.add(passkey, most=1 if partial else MAX_PASSKEYS):
            if partial:
                raise SecondFactorRequiredError
            raise ConflictError(
                f"The passkey exists already, or the user has {MAX_PASSKEYS}: remove one first."
            )
        log.info("passkey added", user=pseudonym(user_id), kind=names.KIND_SECURITY)
        return passkey

    async def of_user(self, user_id: str) -> list[Passkey]:
        """Return the user's passkeys, newest first."""
        return await self._store.of_user(user_id)

    async def remove(self, user_id: str, passkey_id: str, *, keep_one: bool = False) -> None:
        """Delete a passkey of the user.

        Raises:
            ConflictError: It is the last one and *keep_one* is set.
        """
        if keep_one and {passkey_id} >= {one.id for one in await self._store.of_user(user_id)}:
            raise ConflictError(
                "This is the last passkey, and one is required at each sign-in: add another one"
                " first, or turn that off."
            )
        await self._store.remove(user_id, passkey_id)
        log.info("passkey removed", user=pseudonym(user_id), kind=names.KIND_SECURITY)

    async def ask_for(self, user_id: str, *, required: bool) -> None:
        """Require a passkey of the user at each sign-in, or stop requiring it.

        Raises:
            ConflictError: The user has no passkey.
        """
        if required and not await self._store.of_user(user_id):
            raise ConflictError("You have no passkey yet: add one first.")
        await self._directory.set_label(user_id, SECOND_FACTOR, on=required)
        log.info(
            "second factor chosen",
            user=pseudonym(user_id),
            required=required,
            kind=names.KIND_SECURITY,
        )

    async def begin_log_in(self, client: str) -> StartedCeremony:
        """Start a sign-in; the response is the same for all users.

        Raises:
            RateLimitedError: This client tried too often.
        """
        await self._limits.count_login_attempt(client)
        ceremony = await self._begin(ANY_USER)
        options = webauthn.generate_authentication_options(
            rp_id=self._party.id,
            challenge=ceremony.challenge,
            timeout=int(CEREMONY_LIFETIME.total_seconds() * 1000),
            user_verification=UserVerificationRequirement.REQUIRED,
        )
        return StartedCeremony(ceremony.id, webauthn.options_to_json(options))

    async def log_in(
        self, ceremony_id: str, answer: str, *, client: str, user_agent: str
    ) -> OpenedSession:
        """Open a session with a passkey.

        Raises:
            InvalidCredentialsError: The passkey is unknown, or does not match the challenge.
            RateLimitedError: This client tried too often.
        """
        await self._limits.count_login_attempt(client)
        now = self._clock()
        ceremony = await self._store.take_ceremony(ceremony_id, now=now)
        shown = _checked(lambda: parse_authentication_credential_json(answer))
        if ceremony is None or ceremony.user_id != ANY_USER or shown is None:
            raise InvalidCredentialsError
        passkey = await self._store.find(bytes_to_base64url(shown.raw_id))
        if passkey is None or shown.response.user_handle != passkey.user_id.encode():
            raise InvalidCredentialsError
        used = _checked(
            lambda: webauthn.verify_authentication_response(
                credential=shown,
                expected_challenge=ceremony.challenge,
                expected_rp_id=self._party.id,
                expected_origin=list(self._party.origins),
                credential_public_key=passkey.public_key,
                credential_current_sign_count=passkey.sign_count,
                require_user_verification=True,
            )
        )
        if used is None or not await self._store.use(
            passkey, sign_count=used.new_sign_count, now=now
        ):
            raise InvalidCredentialsError
        opened = await self._directory.open_session_of(passkey.user_id, user_agent=user_agent)
        OPENED_BY_PASSKEY.inc()
        log.info("session opened", user=pseudonym(passkey.user_id), by="passkey")
        return opened

    async def _begin(self, user_id: str) -> Ceremony:
        ceremony = Ceremony(
            secrets.token_hex(16),
            user_id,
            secrets.token_bytes(32),
            self._clock() + CEREMONY_LIFETIME,
        )
        await self._store.put_ceremony(ceremony)
        return ceremony


def _checked(verify: Callable[[], T]) -> T | None:
    """Return the result of *verify*; None if the browser's response is invalid."""
    try:
        return verify()
    except Exception as exc:
        # The library parses untrusted bytes: any exception means that they are rejected.
        log.info("passkey rejected", fault=type(exc).__name__)
        return None


def _unfit(name: str, why: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"The passkey was not added: {name}: {why}.", violations=[Violation(name, why)]
    )
