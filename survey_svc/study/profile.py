"""A study's profile: the REDCap variables and instruments that make up a request.

Another study needs only another profile.
"""

from collections.abc import Mapping
from enum import Enum
from importlib.resources import files
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

Condition = Mapping[str, list[str] | Literal["filled"]]
"""Variables and their required codes; ``filled`` matches any value."""


class ProfileError(Exception):
    """The profile is invalid; the message lists every problem."""


class OpinionKind(Enum):
    """Position of an opinion."""

    FAVOURABLE = "favourable"
    WITH_RESERVATIONS = "with_reservations"
    UNFAVOURABLE = "unfavourable"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Variables(_Part):
    """The variables in which the service stores the state of a request."""

    record: str
    """The record id; the first field of the project."""
    created_at: str
    """When the request was created: ISO 8601, UTC."""
    user: str
    """The user id of the applicant, who owns the record."""
    email: str
    """The email address of the applicant."""
    consent_time: str | None = None
    """When the applicant consented; None if the study has no such variable."""
    consent_notice: str | None = None
    """The version of the privacy notice that the applicant saw."""


class OpinionProfile(_Part):
    """An opinion given by someone other than the applicant."""

    instrument: str
    position: str
    """The variable with the position of the opinion."""
    codes: Mapping[str, OpinionKind] = Field(
        default_factory=lambda: dict(zip("123", OpinionKind, strict=True))
    )
    """The meaning of the codes of ``position``."""
    wanted_when: list[Condition] = Field(min_length=1)
    """The opinion is required if one of these alternatives holds."""


class Profile(_Part):
    """The configuration of a study."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")
    variables: Variables
    registration: str | None = None
    """The instrument marked unverified when a request is created."""
    form: str
    """The applicant's form, the first step."""
    opinions: list[OpinionProfile] = Field(default=[], max_length=30)
    final: str | None = None
    """The applicant's final validation; None if the study has no such step."""
    title: list[str] = []
    """Candidates for the title: the first variable with a value."""
    fields: list[str] = Field(default=[], max_length=64)
    """Variables shown with a request."""
    export: list[str] = Field(min_length=1)
    """The instruments in an export of the user's data."""
    pdf: str
    """The instrument of the PDF."""
    pdf_name: str = Field(default="form", pattern=r"^[A-Za-z0-9_-]{1,32}$")
    """The prefix of the PDF's file name."""

    @property
    def applicants(self) -> tuple[str, ...]:
        """The instruments that the applicant fills in."""
        return (self.form,) if self.final is None else (self.form, self.final)

    @property
    def instruments(self) -> list[str]:
        """The instruments in the profile, in order and without duplicates."""
        named = [self.registration, *self.applicants, *self.export, self.pdf]
        named += [opinion.instrument for opinion in self.opinions]
        return list(dict.fromkeys(name for name in named if name))

    @property
    def columns(self) -> list[str]:
        """The columns exported to determine the state of requests, without duplicates."""
        variables = self.variables
        named = [variables.record, variables.created_at, variables.user]
        named += [complete(instrument) for instrument in self.applicants]
        for opinion in self.opinions:
            named += [opinion.position, complete(opinion.instrument)]
            named += [name for condition in opinion.wanted_when for name in condition]
        return list(dict.fromkeys([*named, *self.title, *self.fields]))


def complete(instrument: str) -> str:
    """Return the name of the completion field of *instrument*."""
    return f"{instrument}_complete"


def load(path: Path | None = None) -> Profile:
    """Load a profile.

    Args:
        path: The YAML file; None for the AMARRE study.

    Raises:
        ProfileError: The file cannot be read or is invalid; lists every problem.
    """
    source = path or files("survey_svc.profiles") / "amarre.yaml"
    try:
        return Profile.model_validate(yaml.safe_load(source.read_text("utf-8")))
    except OSError as exc:
        raise ProfileError(f"Cannot read the profile {source}: {exc.strerror}.") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ProfileError(f"The profile {source} is not valid YAML: {exc}") from exc
    except ValidationError as exc:
        lines = [
            f"  {'.'.join(map(str, fault['loc'])) or 'profile'}: {fault['msg']}"
            for fault in exc.errors()
        ]
        raise ProfileError(f"The profile {source} is invalid:\n" + "\n".join(lines)) from exc
