"""Interfaces that the rules depend on: REDCap project, reservation store, cache, clock."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Protocol

from survey_svc.requests.rules import Row
from survey_svc.study.dictionary import Dictionary

Clock = Callable[[], datetime]
"""Returns the current time, aware, in UTC."""


class Project(Protocol):
    """The REDCap project of the study.

    Every method raises UnavailableError if REDCap is unavailable, DeadlineExceededError if it does
    not respond within the deadline, and UpstreamError if its response is invalid.
    """

    async def dictionary(self) -> Dictionary:
        """Return the study's dictionary."""
        ...

    async def rows(self, users: Sequence[str]) -> list[Row]:
        """Return the profile's columns of every record of *users*, as codes."""
        ...

    async def rows_by_id(self, user: str, records: Sequence[str]) -> list[Row]:
        """Return the rows, as `rows` does, of those *records* that exist and are the user's."""
        ...

    async def records(self, user: str, since: datetime | None = None) -> list[str]:
        """Return the ids of the user's records; with *since*, only of those changed since then."""
        ...

    async def answers(self, user: str, records: Sequence[str]) -> list[Row]:
        """Return the exported columns of *records* as labels; only records of *user*."""
        ...

    async def save(self, row: Row) -> None:
        """Create or complete the record that *row* names; idempotent.

        Raises:
            RefusedError: REDCap rejected the record; nothing was stored.
        """
        ...

    async def link(self, record: str, instrument: str) -> str:
        """Return the survey link of a record.

        Raises:
            InvalidUrlError: REDCap returned something other than a link.
        """
        ...

    async def links(self, instrument: str) -> Mapping[str, str]:
        """Return the survey links of *instrument* by record, if REDCap lists them."""
        ...

    def pdf(self, record: str, instrument: str) -> AsyncGenerator[bytes]:
        """Yield the PDF of a record in pieces, after checking that it is one."""
        ...

    async def find_user(self, email: str) -> str:
        """Return the user id stored with an address, case-insensitively; empty if unknown."""
        ...


@dataclass(frozen=True)
class Reservation:
    """A user's reservation for one new request.

    It is stored before any call to REDCap. ``record`` and ``created_at`` never change while it
    exists, so that an attempt that resumes the creation writes the same record.
    """

    user: str
    record: str
    created_at: datetime
    holder: str
    """Random identifier of the attempt that holds the reservation."""
    ends_at: datetime
    """End of the lease, after which another attempt may take over."""
    notice: str = ""
    """Version of the privacy notice that the user saw; consent was given at ``consented_at``."""
    consented_at: datetime | None = None
    key: str = field(default="", repr=False)
    """Digest of the idempotency key; empty without one."""
    input: str = ""
    """Digest of the remaining input."""

    def taken_over_by(self, attempt: "Reservation") -> "Reservation":
        """Return *attempt* with the record and the creation time of this reservation."""
        return replace(attempt, record=self.record, created_at=self.created_at)


@dataclass(frozen=True)
class Answer:
    """Response to a creation with an idempotency key, and its input."""

    record: str
    input: str


@dataclass(frozen=True)
class Consent:
    """A user's consent: when, and to which version of the privacy notice."""

    user: str
    at: datetime
    notice: str


@dataclass(frozen=True)
class Claim:
    """Result of claiming a reservation.

    ``reservation`` is the current one: ours if we are its holder. ``before`` is the one that ours
    replaced, whose creation may or may not have reached REDCap.
    """

    reservation: Reservation
    before: Reservation | None = None


class Store(Protocol):
    """Shared by every replica; each method is atomic."""

    async def claim(self, attempt: Reservation, now: datetime) -> Claim:
        """Claim the reservation if it is free or its lease has ended.

        Taking over keeps the record and its creation time.
        """
        ...

    async def finish(self, reservation: Reservation, *, remember: timedelta) -> None:
        """Complete a creation: store consent and the key's response, release the reservation."""
        ...

    async def drop(self, reservation: Reservation) -> None:
        """Release the reservation: nothing was sent to REDCap, or REDCap rejected it."""
        ...

    async def let_go(self, reservation: Reservation, now: datetime) -> None:
        """End the lease now; whether the request was created is unknown."""
        ...

    async def answered(self, user: str, key: str, now: datetime) -> Answer | None:
        """Return the response to a creation with this key; None if there is none or it expired."""
        ...

    async def consent(self, record: str) -> Consent | None:
        """Return the consent with which a record was created; None if none is stored."""
        ...

    async def erase(self, user: str) -> int:
        """Delete what is stored of the user; return the number of consents. Idempotent."""
        ...

    async def abandoned(self, now: datetime, *, limit: int = 100) -> list[Reservation]:
        """Return reservations whose lease has ended."""
        ...

    async def close(self) -> None:
        """Release the store's resources."""
        ...


class Cache(Protocol):
    """Key-value cache with a lifetime per entry."""

    async def get(self, key: str) -> bytes | None:
        """Return the value of *key*."""
        ...

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the value of each of *keys*."""
        ...

    async def put(self, key: str, value: bytes, ttl: timedelta) -> None:
        """Store *value* for at most *ttl*."""
        ...

    async def drop(self, key: str) -> None:
        """Delete *key*."""
        ...

    async def close(self) -> None:
        """Release the cache's resources."""
        ...
