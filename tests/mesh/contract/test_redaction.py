"""The redaction rule, against a corpus of credentials and harmless texts."""

import time
from typing import Any

import pytest

from mesh.contract import redaction
from tests.mesh.contract.redaction_corpus import (
    HARMLESS,
    HARMLESS_VALUES,
    NAMES,
    PATHOLOGICAL,
    PERSONS,
    TEXTS,
    WORDS,
    P,
)


def stored(key: str, found: Any) -> str:
    return str(redaction.value(key, found))


def test_corpus_is_large_enough() -> None:
    """
    The corpus has at least 100 distinct secrets and 100 distinct harmless texts.
    """
    assert len({*NAMES, *TEXTS}) == len(NAMES) + len(TEXTS) >= 100
    assert len({*HARMLESS}) + len(HARMLESS_VALUES) >= 100


@pytest.mark.parametrize("key", NAMES)
def test_name(key: str) -> None:
    """
    An attribute named like a credential is redacted, in any case style, also nested.
    """
    assert redaction.REDACTED == redaction.value(key, P)
    assert P not in stored(key, [P])
    assert P not in stored("outer", {key: {"inner": [1, P]}})


@pytest.mark.parametrize("words", WORDS)
def test_case_styles(words: str) -> None:
    """
    A name is recognised in every case style, as an attribute and in a text.
    """
    each = words.split()
    pascal = "".join(map(str.capitalize, each))
    styles = {pascal, pascal[0].lower() + pascal[1:], "".join(each), "".join(each).upper()}
    for mark in "_-":
        styles |= {mark.join(each), mark.join(each).upper(), mark.join(map(str.capitalize, each))}
    styles |= {f"Prod{style}" for style in styles} | {f"http.request.{style}" for style in styles}

    for style in sorted(styles):
        assert redaction.REDACTED == redaction.value(style, P), style
        assert P not in redaction.clean(f"{style}={P}"), style
        assert P not in redaction.clean(f'{{"{style}": "{P}"}}'), style


@pytest.mark.parametrize("key", PERSONS)
def test_person(key: str) -> None:
    """
    An attribute that identifies a person is redacted, whatever its value.
    """
    assert redaction.REDACTED == redaction.value(key, "Ada Lovelace")


@pytest.mark.parametrize("text", [*TEXTS, *HARMLESS])
def test_again(text: str) -> None:
    """
    Redacting a text twice changes nothing more.
    """
    once = redaction.clean(text)

    assert once == redaction.clean(once)


@pytest.mark.parametrize("part", PATHOLOGICAL)
def test_linear(part: str) -> None:
    """
    A text that almost matches a rule at every position does not delay the others.

    Fails with `[?#](?=[^\\s]*[=\\w])`, which took a minute for ``/#/#…`` of this length.
    """
    started = time.process_time()
    redaction.clean(part * (65_536 // len(part)))

    assert time.process_time() - started < 5


@pytest.mark.parametrize("text", TEXTS)
def test_look(text: str) -> None:
    """
    A credential or an e-mail address is removed from any text by pattern.
    """
    cleaned = redaction.clean(text)

    for secret in (P, "9A81268476645C4E", "PLANTED9", "Planted"):
        assert secret not in cleaned
    assert redaction.REDACTED in cleaned
    # Nothing that a rule recognises escapes the cheap check before the rules.
    assert not text.isascii() or redaction._SUSPECT.search(text) or redaction._may_name(text)
    assert redaction.REDACTED in redaction.clean(f"{'x ' * 200}{text}")
    assert P not in stored("note", [text])


@pytest.mark.parametrize("name", ["password", "Passwort", "Kennwort", "mdp", "contraseña", "senha"])
def test_word(name: str) -> None:
    """
    After the name of a password, in any language, even an ordinary word is redacted.
    """
    assert f"{name}: {redaction.REDACTED}" == redaction.clean(f"{name}: hunter")


AROUND = (
    *(
        ("ValueError: ", ""),
        ("x: y: z: ", ""),
        ("note=", ""),
        ("a=b=", ""),
        ("key:", ""),
        ("a,", ""),
    ),
    *(('error="', '"'), ("{'detail': '", "'}"), ('{"message": "', '"}'), ("(", ")"), ("`", "`")),
    *(("[", "]"), ("", ", then"), ("", ";x"), ("", "."), ("\t", "")),
)


@pytest.mark.parametrize(("before", "after"), AROUND)
def test_within(before: str, after: str) -> None:
    """
    A credential is found within the value of something else, and harmless texts stay there too.

    Fails if a pair whose name is not a credential hides the one in its value.
    """
    for text in TEXTS:
        cleaned = redaction.clean(f"{before}{text}{after}")
        assert not [s for s in (P, "9A81268476645C4E", "Planted") if s in cleaned], text
    for text in HARMLESS:
        assert f"{before}{text}{after}" == redaction.clean(f"{before}{text}{after}")


def test_cut() -> None:
    """
    A text is cut after it was redacted: wherever the cut is, no part of a credential remains.

    Fails if it is cut first: ``postgresql://ada:…@`` is recognised by the host that follows.
    """
    long = "x@example.org " * 40
    for text in TEXTS:
        for length in range(1, len(text), 5):
            assert "Planted" not in redaction.cut(text, length), (text, length)
            start = redaction.cut(f"{long}{text}", len(long) + length)
            assert len(start) <= len(long) + length
            assert "Planted" not in start, (text, length)
    assert "harmless harm" == redaction.cut("harmless " * 1000, 13)


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text(text: str) -> None:
    """
    A text without a credential is unchanged.
    """
    assert text == redaction.clean(text)


@pytest.mark.parametrize(("key", "found"), HARMLESS_VALUES, ids=[k for k, _ in HARMLESS_VALUES])
def test_harmless_value(key: str, found: Any) -> None:
    """
    A number, a boolean, or a description of a credential is unchanged.
    """
    assert found == redaction.value(key, found)
