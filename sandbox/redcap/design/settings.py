"""A project's settings, as listed by ``content=project``."""

from collections.abc import Mapping
from typing import Any

from sandbox.redcap.errors import ApiError
from sandbox.redcap.store import server_time

DEFAULTS: Mapping[str, Any] = {
    "project_title": "",
    "creation_time": "",
    "production_time": "",
    "in_production": 0,
    "project_language": "English",
    "purpose": 0,
    "purpose_other": "",
    "project_notes": "",
    "custom_record_label": "",
    "secondary_unique_field": "",
    "is_longitudinal": 0,
    "has_repeating_instruments_or_events": 0,
    "surveys_enabled": 0,
    "scheduling_enabled": 0,
    "record_autonumbering_enabled": 1,
    "randomization_enabled": 0,
    "ddp_enabled": 0,
    "project_irb_number": "",
    "project_grant_number": "",
    "project_pi_firstname": "",
    "project_pi_lastname": "",
    "project_pi_email": "",
    "display_today_now_button": 1,
    "missing_data_codes": "",
    "external_modules": "",
    "bypass_branching_erase_field_prompt": 0,
}
"""Default settings in REDCap's order; a setting keeps the type of its default."""

READ_ONLY = frozenset(
    {
        "creation_time",
        "production_time",
        "in_production",
        "has_repeating_instruments_or_events",
        "randomization_enabled",
        "ddp_enabled",
        "external_modules",
    }
)
"""Settings that are derived, or reserved for administrators."""


def project_settings(**given: Any) -> dict[str, Any]:
    """Return the settings of a new project: the defaults, overridden by *given*."""
    return {**DEFAULTS, "creation_time": server_time(), **given}


def parse(name: str, text: str) -> str | int:
    """Parse a setting's value sent by a client.

    Raises:
        ApiError: An integer setting is not an integer.
    """
    if not isinstance(DEFAULTS[name], int):
        return text
    if not text.strip().isdecimal():
        raise ApiError(f"The project setting '{name}' must be an integer, not '{text}'.")
    return int(text)
