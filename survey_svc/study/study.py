"""The study being served: its profile and the dictionary it was checked against."""

import asyncio

import structlog

from mesh.chassis.errors import MeshError, UnavailableError
from survey_svc.errors import RefusedError
from survey_svc.ports import Project
from survey_svc.study.dictionary import Dictionary, faults
from survey_svc.study.profile import Profile, ProfileError

log = structlog.get_logger("study")

AGAIN_SECONDS = 300.0
"""How often the dictionary is refreshed, to pick up changed labels and variables."""
RETRY_SECONDS = 2.0


class Study:
    """A profile and, once checked against REDCap, the dictionary."""

    def __init__(self, profile: Profile, project: Project) -> None:
        self.profile = profile
        self._project = project
        self._dictionary: Dictionary | None = None
        self._faults: list[str] = []

    @property
    def dictionary(self) -> Dictionary:
        """The study's dictionary.

        Raises:
            UnavailableError: The dictionary has not been read yet, or does not match the profile.
        """
        if self._dictionary is None:
            raise UnavailableError("The study's dictionary has not been read from REDCap yet.")
        return self._dictionary

    async def check(self) -> None:
        """Read the dictionary and check the profile against it.

        Raises:
            ProfileError: The profile does not match, or REDCap rejects the token.
            MeshError: REDCap is unavailable or its response invalid; the last dictionary stays.
        """
        try:
            dictionary = await self._project.dictionary()
        except RefusedError as exc:
            raise ProfileError(
                "REDCap rejected the export of the study's dictionary; put an API token of the "
                "project, with the rights to export, import and distribute surveys, into the file "
                "that AMARRE_SURVEY_REDCAP_TOKEN_FILE names."
            ) from exc
        found = faults(self.profile, dictionary)
        if found:
            self._dictionary = None
            lines = "\n".join(f"  {fault}" for fault in found)
            raise ProfileError(
                f"The profile {self.profile.name!r} does not match the REDCap project:\n{lines}"
            )
        if dictionary != self._dictionary:  # Other code compares by identity, which is cheap.
            self._dictionary = dictionary

    async def is_ready(self) -> bool:
        """Return whether requests can be served."""
        return self._dictionary is not None

    async def keep(self) -> None:
        """Refresh the dictionary until cancelled, more often while it is missing."""
        while True:
            await asyncio.sleep(RETRY_SECONDS if self._dictionary is None else AGAIN_SECONDS)
            try:
                await self.check()
            except ProfileError as error:
                self._report([str(error)])
            except MeshError as fault:
                # The last dictionary stays in use.
                log.warning("reading the dictionary failed", fault=type(fault).__name__)
            else:
                self._report([])

    def _report(self, found: list[str]) -> None:
        if found != self._faults:
            self._faults = found
            if found:
                log.error("profile does not match", message=found[0])
