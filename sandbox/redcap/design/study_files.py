"""Load a study from a CSV dictionary and an optional JSON file with the same name.

The JSON file may set ``title``, ``language``, ``labels`` by instrument and
``surveys`` by instrument. Without it every instrument is a survey.
"""

import csv
import json
from pathlib import Path

from sandbox.redcap.design import dictionary
from sandbox.redcap.design.project import Project, Survey
from sandbox.redcap.design.rights import OWNER
from sandbox.redcap.design.settings import project_settings
from sandbox.redcap.errors import ApiError

AMARRE = Path(__file__).parent.parent / "study" / "amarre_data_dictionary.csv"
USERNAME = "sandbox"
"""Username for the token of a study loaded from files."""


def from_file(path: Path) -> Project:
    """Read a study.

    Raises:
        ApiError: The dictionary or the JSON file is invalid.
        OSError: A file cannot be read.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        fields = dictionary.from_rows(csv.DictReader(file))
    companion = path.with_suffix(".json")
    about = json.loads(companion.read_text(encoding="utf-8")) if companion.exists() else {}
    surveys = about.get("surveys", {form: {} for form in fields.forms})
    unknown = sorted({*surveys, *about.get("labels", {})} - set(fields.forms))
    if unknown:
        raise ApiError(f"{companion.name} names unknown instruments: {', '.join(unknown)}")
    return Project(
        id=0,
        dictionary=fields,
        settings=project_settings(
            project_title=about.get("title", path.stem),
            project_language=about.get("language", "English"),
            surveys_enabled=int(bool(surveys)),
        ),
        labels=about.get("labels", {}),
        surveys={form: Survey(**survey) for form, survey in surveys.items()},
        users={USERNAME: OWNER},
    )
