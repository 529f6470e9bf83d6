"""Tokens of ended sessions are rejected before they expire."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from mesh.chassis import call
from mesh.chassis.credentials import revocations
from mesh.chassis.credentials.revocations import KEPT_SECONDS, RevokedSessions
from mesh.chassis.identity import SpiffeId
from mesh.chassis.testing import FixedKeys
from mesh.chassis.tokens import InvalidTokenError, SigningKey, TokenVerifier, mint

GATEWAY = SpiffeId("amarre.local", "amarre", "gateway")
WAIT_SECONDS = 20.0


async def test_verified_token_of_an_ended_session() -> None:
    """A previously verified token is rejected as soon as its session is revoked."""
    revoked, key = RevokedSessions(), SigningKey.generate()
    verifier = TokenVerifier(FixedKeys(key), audience="survey", revoked=revoked)
    users = [call.User("ada", session, "ada@example.org") for session in ("one", "two")]
    one, two = (mint(key, user, audience="survey", caller=GATEWAY)[0] for user in users)
    await verifier.verify(one, caller=GATEWAY)

    revoked.add(["one"])

    with pytest.raises(InvalidTokenError, match="session"):
        await verifier.verify(one, caller=GATEWAY)
    assert "two" == (await verifier.verify(two, caller=GATEWAY)).session_id


def test_entries_expire() -> None:
    """Entries are dropped once none of their tokens can be valid."""
    now = 0.0
    revoked = RevokedSessions(now=lambda: now)
    revoked.add(["one"])
    now = KEPT_SECONDS - 1
    revoked.add(["two"])
    assert "one" in revoked

    now = KEPT_SECONDS
    revoked.add([])

    assert ("one" in revoked, "two" in revoked) == (False, True)


async def test_follows_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that ends, or falls silent, is reopened; only the latter is a warning."""
    monkeypatch.setattr(revocations, "PAUSE_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(revocations, "SILENCE_SECONDS", 0.05)
    revoked, opened = RevokedSessions(), 0

    async def watch() -> AsyncIterator[list[str]]:
        nonlocal opened
        opened += 1
        yield [f"session-{opened}"]
        if opened == 2:
            await asyncio.Event().wait()

    with capture_logs() as logged:
        follower = asyncio.create_task(revoked.follow(watch))
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while "session-3" not in revoked:
                    await asyncio.sleep(0.01)
        finally:
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)

    assert "session-1" in revoked
    warned = [one["fault"] for one in logged if one["log_level"] == "warning"]
    assert ["TimeoutError"] == warned
