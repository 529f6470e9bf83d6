"""
The redaction rule as far as RE2 can express it, for programs that only take such patterns.

It is rendered from the names and formats of the rule. RE2 has no lookaround and no code: encoded
texts, names that are followed by other words, and the distinction between credentials and words
are left to the rule itself, which every process applies before it exports.

Source:
    RE2, "Syntax". The patterns mean the same in Python's `re` with `re.ASCII`.
"""

from collections import defaultdict
from collections.abc import Iterable

from mesh.contract.credential_names import (
    CREDENTIALS,
    ENDINGS,
    PAIRS,
    PERSONAL_ENDINGS,
    QUERIES,
    SUFFIXES,
    WHOLE,
)
from mesh.contract.redaction import SHAPES

_COUNTED = frozenset({"tokens", "cookies", "secrets", "passwords", "creds"})
"""Plurals: also the names of numbers, which programs with these patterns mask too."""
_GAP = "[^a-z]*"
_ENDED = rf"(?:{_GAP}(?:{'|'.join(SUFFIXES)}))?"


def _any(found: Iterable[str]) -> str:
    return f"(?:{'|'.join(sorted(found))})"


def _pairs() -> str:
    """Return the pattern of two words that name a credential together."""
    first = defaultdict(set)
    for one, other in PAIRS - {("session", "id")}:
        first[other.removesuffix("s") if other in {"keys", "codes"} else other].add(one)
    return "|".join(f"{_any(ones)}{_GAP}{other}" for other, ones in sorted(first.items()))


_OTHERS = "session[_-]id", f"mot{_GAP}de{_GAP}passe"
"""``session.id`` identifies a visit."""
_LONG = f"(?:{_any({*ENDINGS, *_OTHERS} - _COUNTED)}|{_pairs()})"
"""Names that are recognised without the start of a word."""
_WORDS = CREDENTIALS - {*ENDINGS} - _COUNTED
_SHORT, _CAPITALISED = _any(_WORDS), _any(map(str.capitalize, _WORDS))
_NAME = rf"(?i:{_LONG}|(?:\b|_){_SHORT})(?i:{_ENDED})\d{{0,4}}"
"""The end of the name of a credential in a text: without backtracking, the search for what
precedes it would take ten times as long."""
_CLOSED = r"(?:\[\]|\]|%5D)?\\{0,4}[\"'`]?"
_OPEN = r"\s{0,8}[\[{(]?\s?b?\\{0,8}[\"'`]"
_EQUALS = r"(?:=>|:=|!==?|={1,3}|＝|%(?:25)*3D|\\{1,8}u003[dD])"
_IS = rf"(?:{_EQUALS}|:)"
_WORD = r"[^\s\"'`&;,<>()\[\]{}]"
_LETTERS = r"[\w+/=.~!$*-]"
_OPAQUE = rf"(?:{_LETTERS}*[A-Z]{_LETTERS}*\d{_LETTERS}*|{_LETTERS}*\d{_LETTERS}*[A-Z]{_LETTERS}*)"
_PAIRS = (
    rf"{_IS}{_OPEN}[^\"'`\\]{{2,}}",
    rf"{_EQUALS}\s{{0,8}}[^\s\"'`&;,<>()\[\]{{}}*$?]{_WORD}{{3,}}",
    rf":\s{{0,8}}{_WORD}*[0-9A-Z]{_WORD}*",
    r"[:=]\s{0,8}[\[{(<][^\[\]{}()<>]*[A-Za-z][^\[\]{}()<>]*",
    r",\s*b?[\"'][^\"']*[0-9A-Z][^\"']*",
)
"""What follows the name: a quoted value, one behind an equals sign, one behind a colon that does
not look like a word, a list or object, the next element of a list."""
_FOLLOWED = rf"\s+(?:(?i:is|was)\s+)?[\"'`]?{_OPAQUE}"
_LABEL = r"[^\s@\"'<>(),:;\[\]/.%=]+"

KEYS = (
    rf"(?i){_LONG}{_ENDED}{_GAP}$",
    rf"(?:(?:^|[^A-Za-z])(?i:{_SHORT})|{_CAPITALISED})[^A-Za-z]*$",
    rf"(?i)^{_any(WHOLE)}$",
    "^__(?:Host|Secure)-",
)
"""Names of attributes that hold a credential."""
PERSONS = (
    rf"(?i)(?:{'|'.join(e.replace('_', _GAP) for e in sorted({*PERSONAL_ENDINGS, *QUERIES}))})$"
)
"""Names of attributes that identify a person."""
TEXTS = (
    r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*-----|$)",
    r"\beyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*){0,3}",
    r"(?i)\bauthorization[\"']?\s*[:=]\s*[\"']?[\w-]+\s+[^\s\"']*[0-9=][^\r\n\"']*",
    r"(?i)\b(?:set-)?cookie2?[\"']?\s*[:=,]\s*[b\"']{0,2}[^\s=;\"']+=[^\r\n\"']*",
    r"__(?:Host|Secure)-[\w-]+=[^\s;\"']+",
    r"(?i)\bdigest\s+[\w-]+=[^\r\n]+",
    (
        r"(?i)\b(?:bearer|basic|digest|negotiate|ntlm|apikey|dpop)\s+"
        r"(?:[\w.~+/=-]*\d[\w.~+/=-]*|[\w.~+/=-]{16,})"
    ),
    r"[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#\"'<>]+@",
    r"(?:^|[^\w:/])//[^\s/?#\"'<>]+@",
    r"[\w.-]+:[^\s:@/\"']{3,}@[A-Za-z.-]+(?::\d|[(/,])",
    r"(?:^|\s)(?:-u|--user|--proxy-user)[ =][^\s:]+:\S*[^\s\d]\S*",
    # The query only: the address before it stays readable.
    r"\?[\w.~%\[\]-]{1,64}=[^\s\"'<>]+",
    r"#[^\s\"'<>]*=[^\s\"'<>]+",
    r"(?i)%(?:25)*3F[\w.~-]{1,64}%(?:25)*3D[^\s\"'<>]+",
    # Name and value as fields.
    (
        rf"(?i:\b(?:key|name))[\"']?\s*[:=]\s*[\"']?[\w.-]*{_NAME}[\"']?\s*,?\s*[\"']?(?i:value)[\"']?"
        r"\s*[:=]\s*(?:\{[^{}]*|[\"'][^\"']+)"
    ),
    rf"\b(?i:{_any(WHOLE)})={_WORD}{{4,}}",
    rf"<(?:[\w.-]+:)?[\w.-]*{_NAME}(?:\s[^<>]*)?>[^<>]+",
    rf"{_NAME}(?:{_CLOSED}\s{{0,8}}(?:{'|'.join(_PAIRS)})|{_FOLLOWED})",
    SHAPES,
    # E-mail addresses, last: they may be parts of what is above.
    (
        r"(?:\"[^\"\s]{1,64}\"|[^\s@\"'<>(),:;\[\]/=]{1,64})(?:[@＠]|%(?:25)*40)"
        rf"(?:\[[\d.]{{7,15}}\]|(?:{_LABEL}\.)+(?:[^\s@\"'<>(),:;\[\]/.%=\d-]{{2,24}}|xn--[\w-]+))"
    ),
)
"""Credentials and e-mail addresses in texts; the longest matches first."""
