"""Auth with fakes for everything outside it, for its tests."""

import asyncio
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import httpx

from auth_svc.config import AuthSettings
from auth_svc.console import NoConsole
from auth_svc.errors import InvalidCredentialsError
from auth_svc.ports import Directory, Mail, SessionLife
from auth_svc.providers.appwrite import AppwriteDirectory
from auth_svc.providers.appwrite_client import AppwriteClient, AppwriteProject
from auth_svc.providers.embedded import EmbeddedDirectory
from auth_svc.service import AuthService
from auth_svc.sessions.lifecycle import Sessions
from auth_svc.sessions.revocations import Revocations
from auth_svc.sessions.second_factor import SecondFactorPolicy
from auth_svc.sign_in.addresses import AllowedDomains
from auth_svc.sign_in.magic_links import LinkRules, SignIn
from auth_svc.sign_in.passkeys import Passkeys, RelyingParty
from auth_svc.sign_in.rate_limits import LinkLimits, RateLimits
from auth_svc.storage.counters import SqlCounters
from auth_svc.storage.database import Database
from auth_svc.storage.links import SqlLinks
from auth_svc.storage.passkeys import SqlPasskeys
from auth_svc.storage.revocations import SqlRevocations
from auth_svc.storage.session_uses import SqlSessionUses
from mesh.chassis.errors import UnavailableError
from mesh.chassis.testing import FakeClock
from mesh.chassis.tokens import SigningKey

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
LINK_URL = "http://localhost:3000/login"
LIFE = SessionLife(absolute=timedelta(days=7), idle=timedelta(hours=12))


class FakeContacts:
    """Contacts from a table; ``unavailable`` means that REDCap is unavailable."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self.unavailable = False

    async def find(self, email: str) -> str:
        """Return the id in the table."""
        if self.unavailable:
            raise UnavailableError("REDCap is unavailable.")
        return self.known.get(email, "")


class FakeMailer:
    """Stores mail; ``full`` simulates a full queue."""

    def __init__(self) -> None:
        self.sent: list[Mail] = []
        self.full = False

    def enqueue(self, mail: Mail) -> None:
        """Store *mail*."""
        if self.full:
            raise UnavailableError("Too many mails wait.")
        self.sent.append(mail)


@dataclass(frozen=True)
class MailedLink:
    """The two parts of a link."""

    user_id: str
    secret: str


def link_in(mail: Mail) -> MailedLink:
    """Return the parts of the link in *mail*."""
    found = re.search(r"https?://\S+", mail.text)
    assert found is not None
    return _parts(found.group())


def _parts(url: str) -> MailedLink:
    query = parse_qs(urlsplit(url).query)
    return MailedLink(query["userId"][0], query["secret"][0])


@dataclass
class Harness:
    """Auth's rules with a database, a directory and fakes."""

    database: Database
    clock: FakeClock
    directory: Directory
    limited: bool = True
    link_limits: LinkLimits = AuthSettings.model_construct().link_limits()  # noqa: RUF009 - frozen
    operators: tuple[str, ...] = ()
    staleness: timedelta = timedelta(seconds=2)
    second_factor: SecondFactorPolicy = field(default_factory=SecondFactorPolicy)
    contacts: FakeContacts = field(default_factory=FakeContacts)
    mailer: FakeMailer = field(default_factory=FakeMailer)
    key: SigningKey = field(default_factory=SigningKey.generate)

    def __post_init__(self) -> None:
        self.links = SqlLinks(self.database)
        limits = RateLimits(
            SqlCounters(self.database),
            self.clock,
            links=self.link_limits,
            off=not self.limited,
        )
        self.sign_in = SignIn(
            LinkRules(AllowedDomains(["example.org", "Universität.example.org"]), LINK_URL),
            self.clock,
            directory=self.directory,
            links=self.links,
            limits=limits,
            contacts=self.contacts,
            mailer=self.mailer,
        )
        self.revocations = Revocations(SqlRevocations(self.database), self.clock)
        self.sessions = Sessions(
            self.directory,
            lambda: self.key,
            self.clock,
            revocations=self.revocations,
            second_factor=self.second_factor,
            staleness=self.staleness,
            operators=self.operators,
        )
        self.passkeys = Passkeys(
            RelyingParty("localhost", ("http://localhost:3000",)),
            self.clock,
            store=SqlPasskeys(self.database),
            directory=self.directory,
            limits=limits,
        )
        self.service = AuthService(
            self.sign_in,
            self.sessions,
            self.passkeys,
            revocations=self.revocations,
            console=NoConsole(),
        )

    async def link(self, email: str = "ada@example.org") -> MailedLink:
        """Request a link and return it from the mail."""
        await self.sign_in.sign_up(email, client="192.0.2.1", language="")
        return await self.mailed()

    async def mailed(self) -> MailedLink:
        """Return the link in the last mail."""
        return link_in(self.mailer.sent[-1])

    async def advance(self, by: timedelta) -> None:
        """Advance the time by *by*."""
        self.clock.advance(by)

    async def use(self, link: MailedLink) -> str:
        """Sign in with *link* and return the session's secret."""
        opened = await self.sign_in.log_in(
            link.user_id, link.secret, client="192.0.2.1", user_agent=FIREFOX
        )
        return opened.secret

    async def use_at_once(self, link: MailedLink, times: int) -> tuple[int, int]:
        """Use *link* many times concurrently; return how many succeed and how many are rejected."""
        tries = (self.use(link) for _ in range(times))
        results = await asyncio.gather(*tries, return_exceptions=True)
        opened = sum(isinstance(result, str) for result in results)
        return opened, sum(isinstance(result, InvalidCredentialsError) for result in results)


def present_clock() -> FakeClock:
    """Return a clock that starts now, for tokens that real verifiers check."""
    clock = FakeClock()
    clock.now = datetime.now(UTC).replace(microsecond=0)
    return clock


def embedded(database: Database, clock: FakeClock) -> EmbeddedDirectory:
    """Return the embedded provider on *database*."""
    return EmbeddedDirectory(database, LIFE, clock)


PROJECT, APPWRITE_KEY = "amarre", "standard_test"


class AppwriteHarness(Harness):
    """Auth with the Appwrite sandbox, which sends links itself."""

    http: httpx.AsyncClient

    @classmethod
    def over(
        cls, database: Database, clock: FakeClock, http: httpx.AsyncClient
    ) -> "AppwriteHarness":
        """Return Auth with the Appwrite sandbox behind *http*."""
        project = AppwriteProject("http://appwrite/v1", PROJECT, APPWRITE_KEY)
        directory = AppwriteDirectory(
            AppwriteClient(http, project, clock),
            SqlSessionUses(database, LIFE),
            clock,
            life=LIFE,
            link_url=LINK_URL,
        )
        harness = cls(database, clock, directory)
        harness.http = http
        return harness

    async def mailed(self) -> MailedLink:
        """Return the last link that the sandbox sent."""
        answer = await self.http.get("http://appwrite/_control/last-link")
        return _parts(answer.json()["link"])

    async def advance(self, by: timedelta) -> None:
        """Advance the time here and in the sandbox."""
        await super().advance(by)
        seconds = by.total_seconds()
        await self.http.post("http://appwrite/_control/clock", json={"advance_seconds": seconds})

    async def switch(self, **switches: object) -> None:
        """Enable the sandbox's faults."""
        answer = await self.http.put("http://appwrite/_control/switches", json=switches)
        answer.raise_for_status()
