"""The study being served: known, not yet known, changed, or no longer matching."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from mesh.chassis.background import background
from mesh.chassis.errors import UnavailableError, UpstreamError
from survey_svc.study import study as module
from survey_svc.study.dictionary import Dictionary, faults
from survey_svc.study.profile import Profile, ProfileError
from survey_svc.study.study import Study
from tests.survey_svc.fakes import FakeProject

PATIENCE_SECONDS = 2.0


class ChangingProject(FakeProject):
    """A project whose dictionary the test sets; None means that REDCap is unavailable."""

    shown: Dictionary | None = None
    asked = 0

    async def dictionary(self) -> Dictionary:
        self.asked += 1
        if self.shown is None:
            raise UpstreamError("The fake REDCap is in maintenance.")
        return self.shown


@pytest.fixture
async def fitting(profile: Profile) -> Dictionary:
    """A dictionary that matches the profile."""
    return await FakeProject(profile).dictionary()


@pytest.fixture
def project(profile: Profile) -> ChangingProject:
    """A project without a dictionary yet."""
    return ChangingProject(profile)


@pytest.fixture
async def study(
    profile: Profile, project: ChangingProject, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Study]:
    """A study with a short refresh interval."""
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.01)
    study = Study(profile, project)
    async with background("study refresh", study.keep):
        yield study


async def _until(study: Study, *, ready: bool) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await study.is_ready() is not ready:
            await asyncio.sleep(0.001)


class TestStudy:
    async def test_not_known_yet(
        self, study: Study, project: ChangingProject, fitting: Dictionary
    ) -> None:
        """Until REDCap returns the dictionary, requests are UNAVAILABLE; then they are served."""
        with pytest.raises(UnavailableError):
            _ = study.dictionary
        project.shown = fitting
        await _until(study, ready=True)

        assert fitting is study.dictionary

    async def test_outage_later(
        self, study: Study, project: ChangingProject, fitting: Dictionary
    ) -> None:
        """The last dictionary stays in use while REDCap is unavailable."""
        project.shown = fitting
        await _until(study, ready=True)
        project.shown = None
        asked = project.asked
        async with asyncio.timeout(PATIENCE_SECONDS):
            while project.asked < asked + 3:
                await asyncio.sleep(0.001)

        assert await study.is_ready()

    async def test_no_longer_fits(
        self, study: Study, project: ChangingProject, fitting: Dictionary
    ) -> None:
        """A study from which a variable was removed is not served until it is back."""
        project.shown = fitting
        await _until(study, ready=True)
        project.shown = replace(fitting, columns=fitting.columns - {"invite_nom"})
        await _until(study, ready=False)
        project.shown = fitting
        await _until(study, ready=True)

    async def test_every_fault(self, profile: Profile, fitting: Dictionary) -> None:
        """A failed check lists every variable, instrument and completion field."""
        project = ChangingProject(profile)
        project.shown = replace(
            fitting,
            instruments=tuple(name for name in fitting.instruments if name != "labo"),
            columns=fitting.columns - {"invite_nom", "email", "encadrant_complete"},
        )

        with pytest.raises(ProfileError) as ei:
            await Study(profile, project).check()

        for name in ("'labo'", "'invite_nom'", "'email'", "'encadrant_complete'"):
            assert name in str(ei.value)

    def test_fits(self, profile: Profile, fitting: Dictionary) -> None:
        """A matching profile has no faults."""
        assert [] == faults(profile, fitting)
