"""Ports of the rules: REDCap project, reservation store, cache, clock."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Protocol

from survey_svc.requests.rules import Row
from survey_svc.study.dictionary import Dictionary

Clock = Callable[[], datetime]
"""Returns the time now, aware, in UTC."""


class Project(Protocol):
    """The REDCap project of the study.

    Every method raises UnavailableError when REDCap is unavailable, DeadlineExceededError when it
    takes longer than the call may, and UpstreamError when its response is not acceptable.
    """

    async def dictionary(self) -> Dictionary:
        """Return the study's dictionary."""
        ...

    async def rows(self, users: Sequence[str]) -> list[Row]:
        """Return the profile's columns of every record of *users*, as codes."""
        ...

    async def records(self, user: str, since: datetime | None = None) -> list[str]:
        """Return the ids of the user's records, with *since* only those changed since then."""
        ...

    async def answers(self, user: str, records: Sequence[str]) -> list[Row]:
        """Return what the profile exports of *records*, as labels; only those of *user*."""
        ...

    async def save(self, row: Row) -> None:
        """Create or complete the record that *row* names; doing it twice changes nothing.

        Raises:
            RefusedError: REDCap refused the record; nothing was stored.
        """
        ...

    async def link(self, record: str, instrument: str) -> str:
        """Return the survey link of a record.

        Raises:
            InvalidUrlError: REDCap returned something else.
        """
        ...

    async def links(self, instrument: str) -> Mapping[str, str]:
        """Return the survey links of *instrument* by record, as far as REDCap lists them."""
        ...

    def pdf(self, record: str, instrument: str) -> AsyncGenerator[bytes]:
        """Yield the PDF of a record in pieces; nothing before it is known to be one."""
        ...

    async def find_user(self, email: str) -> str:
        """Return the user id kept with an address, compared case-blind; empty when unknown."""
        ...


@dataclass(frozen=True)
class Reservation:
    """A user's place for one new request.

    It is taken before REDCap is asked for anything. ``record`` and ``created_at`` never change
    while it exists, so that whoever carries the creation on writes the same record.
    """

    user: str
    record: str
    created_at: datetime
    holder: str
    """Identifies the attempt that holds the place: a random name."""
    ends_at: datetime
    """When another attempt may take over."""
    notice: str = ""
    """The version of the notice that the user saw; consent was given at ``consented_at``."""
    consented_at: datetime | None = None
    key: str = field(default="", repr=False)
    """Digest of the idempotency key; empty without one."""
    input: str = ""
    """Digest of the other input."""

    def taken_over_by(self, wish: "Reservation") -> "Reservation":
        """Return *wish* with the record and creation time of this reservation."""
        return replace(wish, record=self.record, created_at=self.created_at)


@dataclass(frozen=True)
class Answer:
    """Answer of a creation with an idempotency key, and its input."""

    record: str
    input: str


@dataclass(frozen=True)
class Consent:
    """Who consented, when, and to which version of the notice."""

    user: str
    at: datetime
    notice: str


@dataclass(frozen=True)
class Claim:
    """Result of claiming a reservation.

    ``reservation`` is the one in force: ours when its holder is ours. ``before`` is the one that
    ours took the place of, whose creation may or may not have reached REDCap.
    """

    reservation: Reservation
    before: Reservation | None = None


class Store(Protocol):
    """Shared by every replica; each method is atomic."""

    async def claim(self, wish: Reservation, now: datetime) -> Claim:
        """Reserve the user's place if it is free or its lease has ended.

        Taking over keeps the record and its creation time.
        """
        ...

    async def finish(self, reservation: Reservation, *, remember: timedelta) -> None:
        """Record the created request: store consent and the key's answer, free the place."""
        ...

    async def drop(self, reservation: Reservation) -> None:
        """Free the place: nothing was sent to REDCap, or REDCap refused it."""
        ...

    async def let_go(self, reservation: Reservation, now: datetime) -> None:
        """End the lease now: whether the request was created is unknown."""
        ...

    async def answered(self, user: str, key: str, now: datetime) -> Answer | None:
        """Return what a creation with this key answered; None when none did, or too long ago."""
        ...

    async def consent(self, record: str) -> Consent | None:
        """Return the consent with which a record was created; None when none is recorded."""
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
        """Return what is kept under *key*."""
        ...

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return what is kept under each of *keys*."""
        ...

    async def put(self, key: str, value: bytes, ttl: timedelta) -> None:
        """Keep *value* for at most *ttl*."""
        ...

    async def drop(self, key: str) -> None:
        """Forget *key*."""
        ...

    async def close(self) -> None:
        """Release the cache's resources."""
        ...
