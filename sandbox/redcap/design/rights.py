"""User rights, in REDCap's order."""

from collections.abc import Mapping

NAMES = (
    "design",
    "alerts",
    "user_rights",
    "data_access_groups",
    "reports",
    "stats_and_charts",
    "manage_survey_participants",
    "calendar",
    "data_import_tool",
    "data_comparison_tool",
    "logging",
    "email_logging",
    "file_repository",
    "data_quality_create",
    "data_quality_execute",
    "api_export",
    "api_import",
    "api_modules",
    "mobile_app",
    "mobile_app_download_data",
    "record_create",
    "record_rename",
    "record_delete",
    "lock_records_all_forms",
    "lock_records",
    "lock_records_customization",
)

_WITHHELD = frozenset(
    {
        "record_rename",
        "record_delete",
        "lock_records_all_forms",
        "lock_records",
        "lock_records_customization",
        "mobile_app",
        "mobile_app_download_data",
        "api_modules",
    }
)

OWNER: Mapping[str, int] = dict.fromkeys(NAMES, 1)
"""Everything."""

CREATOR: Mapping[str, int] = {name: int(name not in _WITHHELD) for name in NAMES}
"""Rights of the user who creates a project through the API."""
