"""A study's profile: which variables and instruments of REDCap make up a request.

Another study uses the service with another profile and no code.
"""

from collections.abc import Mapping
from enum import Enum
from importlib.resources import files
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

Condition = Mapping[str, list[str] | Literal["filled"]]
"""Variables and the codes that they must have; ``filled`` stands for any value."""


class ProfileError(Exception):
    """The profile is not usable; the message lists every problem."""


class OpinionKind(Enum):
    """Position of an opinion."""

    FAVOURABLE = "favourable"
    WITH_RESERVATIONS = "with_reservations"
    UNFAVOURABLE = "unfavourable"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Variables(_Part):
    """The variables in which the service keeps what it knows of a request."""

    record: str
    """The record's name; the first field of the project."""
    created_at: str
    """When the request was created: ISO 8601, UTC."""
    user: str
    """The id of the applicant; decides who owns the record."""
    email: str
    """The address of the applicant."""
    consent_time: str | None = None
    """When the applicant consented; None where the study has no such variable."""
    consent_notice: str | None = None
    """Which version of the notice the applicant saw."""


class OpinionProfile(_Part):
    """An opinion that somebody other than the applicant gives."""

    instrument: str
    position: str
    """The variable that says which way the opinion goes."""
    codes: Mapping[str, OpinionKind] = Field(
        default_factory=lambda: dict(zip("123", OpinionKind, strict=True))
    )
    """What the codes of ``position`` mean."""
    wanted_when: list[Condition] = Field(min_length=1)
    """Alternatives: the opinion is wanted when one of them holds."""


class Profile(_Part):
    """What the service needs to know of a study."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")
    variables: Variables
    registration: str | None = None
    """The instrument marked unverified when a request is created."""
    form: str
    """The instrument that the applicant fills first."""
    opinions: list[OpinionProfile] = Field(default=[], max_length=30)
    final: str | None = None
    """The instrument that the applicant fills last; None where the study has no such step."""
    title: list[str] = []
    """Variables of which the first with a value is the title."""
    fields: list[str] = Field(default=[], max_length=64)
    """Variables shown with a request."""
    export: list[str] = Field(min_length=1)
    """The instruments that an export of the user's data holds."""
    pdf: str
    """The instrument that the PDF shows."""
    pdf_name: str = Field(default="form", pattern=r"^[A-Za-z0-9_-]{1,32}$")
    """What the PDF's file name begins with."""

    @property
    def applicants(self) -> tuple[str, ...]:
        """The instruments that are the applicant's to fill."""
        return (self.form,) if self.final is None else (self.form, self.final)

    @property
    def instruments(self) -> list[str]:
        """Every instrument that the profile names, in order, once."""
        named = [self.registration, *self.applicants, *self.export, self.pdf]
        named += [opinion.instrument for opinion in self.opinions]
        return list(dict.fromkeys(name for name in named if name))

    @property
    def columns(self) -> list[str]:
        """What is exported to see how far requests are: variables and completion fields, once."""
        variables = self.variables
        named = [variables.record, variables.created_at, variables.user]
        named += [complete(instrument) for instrument in self.applicants]
        for opinion in self.opinions:
            named += [opinion.position, complete(opinion.instrument)]
            named += [name for condition in opinion.wanted_when for name in condition]
        return list(dict.fromkeys([*named, *self.title, *self.fields]))


def complete(instrument: str) -> str:
    """Return the name of the variable that says how complete *instrument* is."""
    return f"{instrument}_complete"


def load(path: Path | None = None) -> Profile:
    """Load a profile.

    Args:
        path: The YAML file; None means that of the AMARRE study.

    Raises:
        ProfileError: The file cannot be read or is not a profile; lists every problem.
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
        raise ProfileError(f"The profile {source} cannot be used:\n" + "\n".join(lines)) from exc
