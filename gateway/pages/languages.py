"""Language negotiation and translated texts."""

import functools
import math
from collections.abc import Mapping
from datetime import datetime
from importlib import resources
from typing import Any
from zoneinfo import ZoneInfo

import yaml
from starlette.requests import Request

from mesh.chassis.errors import MeshError

LANGUAGES = ("fr", "en")
COOKIE = "lang"
COOKIE_SECONDS = 365 * 24 * 3600
_MOMENT_SECONDS = 10
"""Up to this, a wait is called a moment."""
_ZONE = ZoneInfo("Europe/Paris")


def choose(request: Request) -> str:
    """Return ``fr`` or ``en``, from ``?lang=``, the cookie, or Accept-Language."""
    asked = request.query_params.get("lang") or request.cookies.get(COOKIE)
    if asked in LANGUAGES:
        return asked
    return _accepted(request.headers.get("accept-language", ""))


def _accepted(header: str) -> str:
    """Return the supported language with the highest weight; French when none is accepted.

    Source:
        RFC 9110, section 12.5.4.
    """
    best, best_weight = LANGUAGES[0], 0.0
    for tag, weight in weights(header).items():
        language = tag.partition("-")[0]
        if language in LANGUAGES and weight > best_weight:
            best, best_weight = language, weight
    return best


def weights(header: str) -> dict[str, float]:
    """Return the weight of each value of an Accept header, in lower case.

    Source:
        RFC 9110, section 12.4.2.
    """
    found = {}
    for part in header.split(","):
        value, _, parameter = part.strip().partition(";")
        found[value.strip().lower()] = _weight(parameter)
    return found


def _weight(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    if not name:
        return 1.0
    try:
        return min(1.0, float(value)) if name == "q" else 0.0
    except ValueError:
        return 0.0


@functools.cache
def texts(language: str) -> Mapping[str, Any]:
    """Return all texts in *language*, by group."""
    file = resources.files("gateway.pages").joinpath("texts", f"{language}.yaml")
    loaded: Mapping[str, Any] = yaml.safe_load(file.read_text("utf-8"))
    return loaded


class Translator:
    """Looks up texts by path: ``t("home.title")``."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._texts = texts(language)

    def __call__(self, path: str, **facts: object) -> str:
        """Return the text at *path* with *facts* filled in; KeyError when it does not exist."""
        found: Any = self._texts
        for key in path.split("."):
            found = found[key]
        return str(found).format(**facts) if facts else str(found)

    def name(self, group: str, key: str) -> str:
        """Return the display name of *key*; a readable form of the key when it has none."""
        named = self._texts[group].get(key)
        return str(named) if named else key.replace("_", " ").strip().capitalize()

    def wait(self, error: MeshError) -> str:
        """Return how long to wait after *error* in words, in minutes rounded up."""
        seconds = error.retry_after.total_seconds() if error.retry_after else 0
        minutes = math.ceil(seconds / 60) if seconds > _MOMENT_SECONDS else 0
        texts = self._texts["wait"]
        return str(texts.get(minutes, texts["minutes"])).format(minutes=minutes)

    def date(self, moment: datetime) -> str:
        """Return the day of *moment* in words."""
        local = moment.astimezone(_ZONE)
        month = self._texts["months"][local.month - 1]
        return f"{local.day} {month} {local.year}"

    def time(self, moment: datetime) -> str:
        """Return day and time of *moment* in words."""
        return f"{self.date(moment)}, {moment.astimezone(_ZONE):%H:%M}"
