"""In-memory REDCap project that fails on request."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime

from mesh.chassis.errors import MeshError, UnavailableError
from survey_svc.requests.rules import Row
from survey_svc.study.dictionary import Dictionary, Field
from survey_svc.study.profile import Profile, complete


class FakeProject:
    """Implements `survey_svc.ports.Project`."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self.stored: dict[str, dict[str, str]] = {}
        self.saves = 0
        self.reads = 0
        self.refuse: MeshError | None = None
        """Raised by saves, before they store."""
        self.lose_answers = 0
        """How many saves store and then fail."""
        self.unavailable = 0
        """How many reads fail; negative for all."""
        self.omitted: set[str] = set()
        """Records that exports of users lack."""
        self.gate: asyncio.Event | None = None
        """What saves wait for before they store."""
        self.saving = asyncio.Event()
        """Set when a save has begun."""

    async def dictionary(self) -> Dictionary:
        columns = [*self._profile.columns, self._profile.variables.email]
        fields = {name: Field(name, "", "text", {}) for name in columns}
        completions = [complete(name) for name in self._profile.instruments]
        return Dictionary(
            fields=fields,
            instruments=tuple(self._profile.instruments),
            columns=frozenset([*columns, *completions]),
        )

    async def rows(self, users: Sequence[str]) -> list[Row]:
        self.reads += 1
        await asyncio.sleep(0)
        if self.unavailable:
            self.unavailable -= 1
            raise UnavailableError("The fake REDCap is unavailable.")
        user = self._profile.variables.user
        return [
            dict(row)
            for record, row in self.stored.items()
            if row[user] in users and record not in self.omitted
        ]

    async def rows_by_id(self, user: str, records: Sequence[str]) -> list[Row]:
        await asyncio.sleep(0)
        if self.unavailable:
            self.unavailable -= 1
            raise UnavailableError("The fake REDCap is unavailable.")
        owner = self._profile.variables.user
        rows = [self.stored[record] for record in records if record in self.stored]
        return [dict(row) for row in rows if row[owner] == user]

    async def records(self, user: str, since: datetime | None = None) -> list[str]:
        return [row[self._profile.variables.record] for row in await self.rows([user])]

    async def answers(self, user: str, records: Sequence[str]) -> list[Row]:
        return [row for row in await self.rows([user]) if row["record_id"] in records]

    async def save(self, row: Row) -> None:
        self.saves += 1
        self.saving.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.refuse is not None:
            raise self.refuse
        self.stored.setdefault(row[self._profile.variables.record], {}).update(row)
        if self.lose_answers:
            self.lose_answers -= 1
            raise UnavailableError("The fake REDCap broke off.")

    async def link(self, record: str, instrument: str) -> str:
        return f"http://redcap.test/surveys/?s={record}-{instrument}"

    async def links(self, instrument: str) -> Mapping[str, str]:
        return {}

    async def pdf(self, record: str, instrument: str) -> AsyncGenerator[bytes]:
        yield b"%PDF-fake"

    async def find_user(self, email: str) -> str:
        return ""
