"""The redaction rule as patterns for RE2, against the corpus of the rule itself."""

import re

import pytest

from mesh.contract import redaction_re2
from mesh.contract.credential_names import is_credential, is_personal
from mesh.render import collector
from tests.mesh.contract.redaction_corpus import (
    HARMLESS,
    HARMLESS_VALUES,
    NAMES,
    PERSONS,
    TEXTS,
)

BEYOND = {
    # Plurals also name counts, and other scripts have no case or word boundaries in RE2.
    *("tokens", "secrets", "contraseña", "tökén", "ｔｏｋｅｎ"),
    # The name is followed by another word, or is known only as a whole.
    *("gcp.credentials.json", "connect.sid"),
}
"""Names that the rule recognises and RE2's patterns do not."""
WIDER = {
    *("logo@2x.png", "password=missing", "password=(none)", "token=<redacted>", "password != null")
}
"""Harmless texts that RE2's patterns mask: they have no lookahead."""
SECRET = re.compile("Planted9|PLANTED9|9A81268476|789Planted", re.IGNORECASE)
ALL = (*redaction_re2.KEYS, *redaction_re2.TEXTS, redaction_re2.PERSONS)


def compiled(patterns: tuple[str, ...]) -> list[re.Pattern[str]]:
    return [re.compile(pattern, re.ASCII) for pattern in patterns]


def matches(patterns: tuple[str, ...], name: str) -> bool:
    return any(pattern.search(name) for pattern in compiled(patterns))


def masked(text: str) -> str:
    for pattern in compiled(redaction_re2.TEXTS):
        text = pattern.sub("***", text)
    return text


@pytest.mark.parametrize("pattern", ALL)
def test_syntax(pattern: str) -> None:
    """
    No pattern uses what RE2 lacks: lookaround, back references, atomic groups, ``\\Z``.
    """
    assert not re.search(r"\(\?(?:[=!>(]|<[=!]|P=)|(?<!\\)\\[1-9Z]|[*+?}]\+", pattern)
    # The Collector reads "$" before a brace as the start of a variable.
    assert "${" not in pattern


@pytest.mark.parametrize("name", NAMES)
def test_name(name: str) -> None:
    """
    Names of credentials are recognised, but for those listed.
    """
    assert matches(redaction_re2.KEYS, name) == (name not in BEYOND)


@pytest.mark.parametrize("name", [name for name, value in HARMLESS_VALUES if value is not False])
def test_harmless_name(name: str) -> None:
    """
    Harmless names are kept: the Collector masks numbers of blocked names too.
    """
    assert not matches(redaction_re2.KEYS, name) or name in BEYOND


@pytest.mark.parametrize("name", PERSONS)
def test_person(name: str) -> None:
    """
    Names that identify a person are recognised.
    """
    assert matches((redaction_re2.PERSONS,), name)


@pytest.mark.parametrize("text", TEXTS)
def test_text(text: str) -> None:
    """
    The credential in each text of the corpus is masked.
    """
    assert SECRET.search(text)
    assert not SECRET.search(masked(text))


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless(text: str) -> None:
    """
    Harmless texts are unchanged, but for those listed.
    """
    assert (masked(text) == text) == (text not in WIDER)


def test_collector() -> None:
    """
    The Collector has these patterns and no others.
    """
    processors = collector.configuration()["processors"]
    assert [*redaction_re2.KEYS] == processors["redaction"]["blocked_key_patterns"]
    assert [*redaction_re2.TEXTS] == processors["redaction"]["blocked_values"]
    deletes = processors["attributes/sensitive"]["actions"]
    assert {"pattern": redaction_re2.PERSONS, "action": "delete"} in deletes


def test_not_searched() -> None:
    """
    What the Collector does not search is neither text nor named like a credential or a person.
    """
    ignored = collector.configuration()["processors"]["redaction"]["ignored_keys"]
    assert len(ignored) > 20
    free = {"exception.message", "url.path", "url.full", "http.url", "user_agent", "event.name"}
    assert free.isdisjoint(ignored)
    assert [] == [name for name in ignored if is_credential(name) or is_personal(name)]
