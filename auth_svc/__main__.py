"""``python -m auth_svc``: settings -> adapters -> service -> serve()."""

import asyncio
from contextlib import AsyncExitStack, aclosing
from datetime import timedelta
from functools import partial
from urllib.parse import urlsplit

import structlog

from auth_svc.config import AuthSettings
from auth_svc.console import PATH as CONSOLE_PATH
from auth_svc.console import HttpConsole, NoConsole
from auth_svc.mail.queue import MailQueue
from auth_svc.mail.smtp import SmtpServer
from auth_svc.ports import Console, SessionLife
from auth_svc.providers.appwrite import AppwriteDirectory
from auth_svc.providers.selection import provider, utc_now
from auth_svc.service import AuthService, register
from auth_svc.sessions.lifecycle import Sessions
from auth_svc.sessions.revocations import Revocations
from auth_svc.sessions.second_factor import SecondFactorPolicy
from auth_svc.sign_in.addresses import AllowedDomains
from auth_svc.sign_in.magic_links import LinkRules, SignIn
from auth_svc.sign_in.passkeys import Passkeys, RelyingParty
from auth_svc.sign_in.rate_limits import RateLimits
from auth_svc.signing_keys.jwks_endpoint import serve_key_set
from auth_svc.signing_keys.key_ring import KeyRing
from auth_svc.storage.counters import SqlCounters
from auth_svc.storage.database import Database
from auth_svc.storage.links import SqlLinks
from auth_svc.storage.passkeys import SqlPasskeys
from auth_svc.storage.retention import purge
from auth_svc.storage.revocations import SqlRevocations
from auth_svc.survey_contacts import SurveyContacts
from mesh.chassis import config, server
from mesh.chassis.background import background
from mesh.chassis.channel import channel
from mesh.chassis.credentials import secret_files
from mesh.chassis.telemetry import http_client

log = structlog.get_logger("auth")

SERVICE = "auth"
KEY_CHECK_SECONDS = 5.0
APPWRITE_STALENESS = timedelta(seconds=2)
"""Appwrite's own console can end sessions and block users without notifying Auth."""
PURGE_EVERY = timedelta(minutes=10)
KEPT_AFTER_END = timedelta(days=1)


async def main(settings: AuthSettings) -> None:
    """Build Auth from *settings* and serve it until a stop signal."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(aclosing(Database(settings.auth_database)))
        await database.migrate()
        ring = KeyRing(settings.auth_signing_key_file)
        await stack.enter_async_context(serve_key_set(settings.auth_key_set_listen, ring.document))
        survey = await stack.enter_async_context(channel("survey", settings))
        queue = await stack.enter_async_context(
            MailQueue(_smtp(settings), settings.auth_mail_from, utc_now)
        )
        directory = await stack.enter_async_context(provider(settings, database))
        limits = RateLimits(
            SqlCounters(database),
            utc_now,
            links=settings.link_limits(),
            off=settings.rate_limits == "off",
        )
        sign_in = SignIn(
            LinkRules(
                AllowedDomains(
                    settings.allowed_email_domains,
                    beyond_ascii=settings.auth_smtputf8 == "on",
                ),
                settings.auth_link_url,
                settings.auth_link_lifetime,
            ),
            utc_now,
            directory=directory,
            links=SqlLinks(database),
            limits=limits,
            contacts=SurveyContacts(survey),
            mailer=queue,
        )
        revocations = Revocations(SqlRevocations(database), utc_now)
        sessions = Sessions(
            directory,
            ring.signing,
            utc_now,
            revocations=revocations,
            second_factor=SecondFactorPolicy(settings.auth_second_factor),
            staleness=_staleness(settings),
            operators=settings.auth_operators,
        )
        passkeys = Passkeys(
            _relying_party(settings),
            utc_now,
            store=SqlPasskeys(database),
            directory=directory,
            limits=limits,
        )
        await stack.enter_async_context(background("follow revocations", revocations.follow))
        await stack.enter_async_context(
            background("auth housekeeping", partial(_housekeeping, database, ring))
        )
        watched = {"database writes": database.is_writable, "mail": queue.is_reachable}
        if isinstance(directory, AppwriteDirectory):
            watched["identity"] = directory.is_reachable
        await server.serve(
            SERVICE,
            settings,
            register(
                AuthService(
                    sign_in,
                    sessions,
                    passkeys,
                    revocations=revocations,
                    console=await _console(stack, settings),
                )
            ),
            checks={"database": database.is_reachable},
            watched=watched,
            revoked=revocations,
        )


async def _console(stack: AsyncExitStack, settings: AuthSettings) -> Console:
    file = settings.auth_console_token_file
    if file is None:
        return NoConsole()
    if file.exists():  # The console creates it, possibly after Auth starts.
        secret_files.read("AMARRE_AUTH_CONSOLE_TOKEN_FILE", file)
    http = await stack.enter_async_context(http_client("console", segments=CONSOLE_PATH.split("/")))
    return HttpConsole(http, settings.auth_console_url, file)


def _relying_party(settings: AuthSettings) -> RelyingParty:
    origins = settings.passkey_origins()
    return RelyingParty(urlsplit(origins[0]).hostname or "", origins)


def _staleness(settings: AuthSettings) -> timedelta:
    """Return how long a verified session is cached; bounded so that its use is recorded in time."""
    life = SessionLife(settings.auth_session_lifetime, settings.auth_session_idle)
    longest = timedelta.max if settings.auth_provider == "embedded" else APPWRITE_STALENESS
    return min(settings.auth_session_cache, life.noted_every, longest)


def _smtp(settings: AuthSettings) -> SmtpServer:
    file = settings.auth_smtp_password_file
    password = secret_files.read_text("AMARRE_AUTH_SMTP_PASSWORD_FILE", file) if file else None
    return SmtpServer.parse(
        settings.auth_smtp_url,
        password,
        strict=settings.env == "production",
        ca_file=settings.auth_smtp_ca_file,
    )


async def _housekeeping(database: Database, ring: KeyRing) -> None:
    """Reload the key file and delete expired data until cancelled."""
    purged_at = utc_now() - PURGE_EVERY
    while True:
        ring.refresh()
        if utc_now() - purged_at >= PURGE_EVERY:
            try:
                await purge(database, utc_now() - KEPT_AFTER_END)
                purged_at = utc_now()
            except Exception:
                log.exception("purge failed")
        await asyncio.sleep(KEY_CHECK_SECONDS)


if __name__ == "__main__":
    _settings = config.load_or_exit(AuthSettings)
    server.run(lambda: main(_settings), SERVICE, _settings)
