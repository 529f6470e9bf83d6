"""Parses Appwrite's responses; the only place that decides which are valid.

Strict: wrong types, times without a zone, ids that Appwrite does not allow, deeply nested or
invalid JSON and lone surrogates are upstream errors, never exceptions of a parser, and never the
text of another type (``null`` is not the user "None").

Source:
    Appwrite REST API 1.9, models of users, sessions and tokens; ids: at most 36 letters, digits,
    periods, hyphens and underscores, not starting with a special character; RFC 8259.
"""

import json
from datetime import timedelta
from typing import Annotated, Any, NoReturn, TypeVar

import httpx
import structlog
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from auth_svc.ports import APPLICANT, Session, User
from mesh.chassis.errors import UpstreamError

MAX_BYTES = 4 * 1024 * 1024
"""The maximum size of a response: a page of users has about 200 KB."""

log = structlog.get_logger("appwrite")


def _text(found: object) -> object:
    if not isinstance(found, str):
        raise ValueError("not a text")  # noqa: TRY004 - pydantic handles only ValueError
    return found


Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,35}$")]
Time = Annotated[AwareDatetime, BeforeValidator(_text), Field(strict=False)]


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class Token(_Model):
    """A link that was created."""

    user_id: Id = Field(alias="userId")
    secret: str = Field(min_length=1)


class UserModel(_Model):
    """A user."""

    id: Id = Field(alias="$id")
    email: str
    labels: list[str] | None = None
    status: bool = True

    def user(self) -> User:
        """Return the user; without labels, as the label of applicants is the default."""
        labels = tuple(self.labels or [APPLICANT])
        return User(self.id, self.email, labels, blocked=not self.status)


class Users(_Model):
    """A page of users; for a move to another provider, so that none may be missing."""

    users: list[UserModel]


class SessionModel(_Model):
    """A session; its secret is shown only when it is opened."""

    id: Id = Field(alias="$id")
    created_at: Time = Field(alias="$createdAt")
    ends_at: Time = Field(alias="expire")
    client: str = Field("", alias="clientName")
    system: str = Field("", alias="osName")
    secret: str = Field("", pattern=r"^(?:[A-Za-z0-9+/]+={0,2})?$")

    def session(self, absolute: timedelta) -> Session:
        """Return the session, which lives no longer than *absolute*."""
        device = " on ".join(filter(None, (self.client, self.system)))[:120]
        try:
            ends_at = min(self.ends_at, self.created_at + absolute)
        except OverflowError:
            ends_at = self.ends_at
        return Session(self.id, self.created_at, ends_at, device)


M = TypeVar("M", bound=_Model)


def read(kind: type[M], found: Any) -> M:
    """
    Return *found* as a model.

    Raises:
        UpstreamError: A field is missing or has another type; the message names the fields.
    """
    try:
        return kind.model_validate(found)
    except ValidationError as exc:
        fields = sorted({str(error["loc"][0]) for error in exc.errors() if error["loc"]})
        raise UpstreamError(
            f"Appwrite returned a {kind.__name__.removesuffix('Model').lower()} without a valid "
            f"{', '.join(fields) or 'form'}."
        ) from exc


def each(kind: type[M], found: dict[str, Any], key: str) -> list[M]:
    """
    Return the items of a list; invalid ones are skipped and logged.

    Raises:
        UpstreamError: The response has no such list.
    """
    items = found.get(key)
    if not isinstance(items, list):
        raise UpstreamError(f"Appwrite returned no list of {key}.")
    good = []
    for item in items:
        try:
            good.append(read(kind, item))
        except UpstreamError as error:
            log.error("appwrite item not valid", message=error.message)  # noqa: TRY400 - a sentence
    return good


async def body_of(response: httpx.Response) -> bytes:
    """
    Return the body of a streamed response.

    Raises:
        UpstreamError: It is larger than `MAX_BYTES`, or its content coding is invalid.
    """
    body = bytearray()
    try:
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > MAX_BYTES:
                raise UpstreamError("Appwrite returned a response that is too large.")
    except httpx.DecodingError as exc:
        raise UpstreamError("Appwrite returned a response that cannot be decompressed.") from exc
    return bytes(body)


def parse(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object in *body*; None if it is anything else."""
    try:
        found = json.loads(body.decode(), parse_constant=_not_json)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _not_json(constant: str) -> NoReturn:
    raise ValueError(constant)
