"""Fixtures: one sandbox for all tests, and the survey service on it over real mTLS."""

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from survey_svc.study import profile as profiles
from survey_svc.study.profile import Profile
from tests.postgres import postgres
from tests.survey_svc import servers
from tests.survey_svc.sandbox import Sandbox
from tests.survey_svc.world import World, running


@pytest.fixture(scope="session")
def shared_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A sandbox with the AMARRE study that lives as long as the tests."""
    with Sandbox(tmp_path_factory.mktemp("redcap")) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(shared_sandbox: Sandbox) -> Iterator[Sandbox]:
    """The sandbox, without faults and with calls counted from zero."""
    shared_sandbox.fault()
    shared_sandbox.clear_calls()
    yield shared_sandbox
    shared_sandbox.fault()


@pytest.fixture(scope="session")
def profile() -> Profile:
    """The AMARRE profile."""
    return profiles.load()


@pytest.fixture
async def world(
    sandbox: Sandbox, profile: Profile, svids: Path, tmp_path: Path
) -> AsyncIterator[World]:
    """The survey service on the sandbox."""
    async with running(sandbox, profile, svids, f"sqlite+aiosqlite:///{tmp_path}/s.db") as world:
        yield world


@pytest.fixture
def user() -> str:
    """A unique user id."""
    return secrets.token_hex(10)


@pytest.fixture(
    scope="session",
    params=[
        "sqlite",
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("postgres", marks=pytest.mark.postgres),
    ],
)
def store_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of a store that all tests of the session share."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    match request.param:
        case "sqlite":
            yield f"sqlite+aiosqlite:///{folder / 'survey.sqlite'}"
        case "redis":
            with servers.redis(folder) as url:
                yield url
        case _:
            with postgres() as url:
                yield url
