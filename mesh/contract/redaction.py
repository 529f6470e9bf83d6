"""
The redaction rule: credentials and personal data that are in no telemetry.

Every process applies it to what it writes and exports, and the console again to what it receives:
to every text of every signal, that is log lines, names, attributes, bodies, events, links and
metric labels.

Credentials are recognised by attribute name, in any case style, and by pattern in any text, also
if the text is percent-encoded, escaped or quoted markup; personal data by name, and e-mail
addresses by pattern. Numbers and booleans are never credentials.
"""

import functools
import html
import math
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from mesh.contract import sensitivity
from mesh.contract.credential_names import is_credential, is_personal, words, words_of

REDACTED = "[redacted]"
_DECODED_AT_MOST = 3
"""How many layers of encoding are removed to look for credentials."""
_FOLLOWING = 512
"""How many characters beyond a cut are read to recognise a credential at its end."""
_LARGE = 2**63
"""Integers from here on are written in hexadecimal: Python refuses very long decimal ones."""

_PROSE = words(
    "required missing invalid expired wrong none null nil empty unknown true false yes no ok "
    "changed accepted rejected refused revoked valid not is was are must should cannot has too "
    "the a an incorrect denied absent present optional disabled enabled failed malformed "
    "mismatch unset set default does for in of at from already and or on off undefined redacted "
    "hidden masked requis requise invalide inconnu manquant expiré refusé"
)
"""Words that follow ``token:`` in sentences and are not credentials."""
_PLACEHOLDER = re.compile(
    r"[\"'`]?(?:[*xX.•]{3,}|\$(?:\d+|[A-Z_]+)?|:[a-z_]+|%\w?)[\"'`]?|\[redacted\]?", re.IGNORECASE
)
"""Placeholders of credentials in templates, queries and masked texts."""
_PASSWORDS = words(
    "password passwd pwd pw pass passphrase passcode secret otp totp pin mdp passwort kennwort "
    "contrasena senha"
)
"""Names after which even a number in a text is a credential: ``password=123456``."""

_SUSPECT = re.compile(
    r"[@?=#:%&<＠＝]|eyJ|-----|[0-9A-F]{32}|[0-9a-f]{160}|[_-]|A(?:KI|SI)A|AIza|SG\.|\\u00"
    r"|\b(?:(?:hv[sbr]|ya29|v[1-4])\.|(?i:bearer|basic|digest|negotiate|ntlm|apikey|dpop)\s)"
)
"""A pattern that every text matched by a rule below contains; keeps ordinary values cheap."""
_PARTS_OF_NAMES = tuple(
    words(
        "pass pwd pw secret tok auth cook cred key jwt otp sess sid sig bearer pin cvv mdp jeton "
        "kennwort senha contras assert code link saml csrf xsrf __"
    )
)
"""Every name of a credential contains one of these, unless it has other letters than ASCII."""
_ENCODED = re.compile(
    r"%[0-9A-Fa-f]{2}|\\{1,8}(?:[\"']|u00[0-9a-fA-F]{2}|[nrt])|&(?:\w{2,6}|#\w{2,5});"
)
_ESCAPED = re.compile(r"\\{1,8}(?:u00([0-9a-fA-F]{2})|([\"'])|[nrt])")
_PEM = re.compile(
    r"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?)-----.*?(?:-----END \1-----|\Z)", re.DOTALL
)
_OPAQUE = r"(?=\S*\d)(?=\S*[a-z])(?=\S*[A-Z])[\w+/=.~!$*-]{8,}"
"""Digits, capitals and small letters together: not a word of a sentence."""
_SCHEME = re.compile(
    # A word after "Bearer" is a credential if it is long or contains a digit or inner capital.
    r"\b((?i:bearer|basic|digest|negotiate|ntlm|apikey|dpop))\s+"
    r"(?=[\w.~+/=-]*\d|\w[\w.~+/=-]*[A-Z]|[\w.~+/=-]{16}|[\w.~+/-]{6,}=)[\w.~+/=-]{6,}"
)
_DIGEST = re.compile(r"\b((?i:digest)\s+)[\w-]+=[^\r\n]+")
"""RFC 7616: pairs, most of them quoted, to the end of the line."""
_HEADER = re.compile(
    r"((?i:\bauthorization)[\"']?\s*[:=]\s*[\"']?[\w-]+\s+)"
    r"(?=[^\s\"']*=|[^\s\"']*\d[^\s\"']*[\"'\r\n]|\S*\d\S*\Z)[^\r\n\"']+"
)
_JWT = re.compile(r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*){0,3}")
_USERINFO = re.compile(r"((?:\b[A-Za-z][A-Za-z0-9+.-]*:|(?<![\w:/]))//)[^\s/?#\"'<>]+@(?=[^\s@])")
_LOGIN = re.compile(
    r"(?<![\w/])[\w.-]+:(?:[^\s:@/\"']{3,}@(?!sha\d+:)(?=[\w.-]+:\d)"
    r"|(?=[^\s:@/\"']*\d)[^\s:@/\"']{6,}@(?!sha\d+:)(?=[A-Za-z][\w.-]*(?:[(/,]|\s|\Z)))"
)
_OPTION = re.compile(r"(?<!\S)((?:-u|--user|--proxy-user)[ =][^\s:]+:)(?!\d+(?:\s|\Z))\S+")
_QUERY = re.compile(
    r"((?:(?<![\w+.-])[A-Za-z][A-Za-z0-9+.-]*://|(?<![\w?/.])/)[^\s?#\"'<>]*)([?#])([^\s\"'<>]+)"
)
_BARE_QUERY = re.compile(r"\?(?=[\w.~%\[\]-]{1,64}=)[^\s\"'<>]+")
_EMAIL = re.compile(
    r"(?:\"[^\"\s]{1,64}\"|[\w.!#$%&'*+/=?^`{|}~-]{1,64})(?:[@＠]|%40)"
    r"(?:\[[\d.]{7,15}\]|(?:[\w-]+\.)+(?!(?:png|jpe?g|gif|svg|webp|ico|css|js|ts|json|html|xml"
    r"|ya?ml|txt|log|jar|whl|gz|dll|map)\b)(?:[^\W\d_]{2,24}|xn--[\w-]+)(?![\w-]))"
)
_COOKIES = re.compile(
    r"((?i:\b(?:set-)?cookie2?)[\"']?\s*[:=,]\s*[b\"']{0,2})[^\s=;\"']+=[^\r\n\"']*"
)
_HOST_COOKIE = re.compile(r"(__(?:Host|Secure)-[\w-]+=)[^\s;\"']+")
_START = r"(?<![\w.])(?<!\w-)"
"""The start of a name; options start with one or two hyphens."""
_KEY = r"[^\W\d_][\w.-]{1,63}"
_PREFIX = (
    r"(?:(?i:api|access|private|secret|signing|encryption|account|ssh|recovery|verification)\s"
    r"|(?i:mot\sde)\s)?"
)
_QUOTED = r"(?:[bru]{0,2}|\\{1,8})(?:\"[^\"]*(?:\"|\Z)|'[^']*(?:'|\Z)|`[^`]*(?:`|\Z))"
_HELD = (
    rf"(?:{_QUOTED}|\[[^\[\]]*(?:\]|\Z)|\{{[^{{}}]*(?:\}}|\Z)|\([^()]*(?:\)|\Z)|<[^<>]*(?:>|\Z)"
    r"|[^\s\"'&;,(){}<>\[\]]+)"
)
_PAIR = re.compile(
    rf"{_START}({_PREFIX}{_KEY})((?:\[\]|\])?[\"'`]?\s{{0,8}}(?:=>|:=|!==?|={{1,3}}|[:＝])\s{{0,8}})"
)
"""The start of a pair. Its value is read only after the name of a credential, so that a pair within
the value of another, as in ``ValueError: password=…``, is found."""
_PAIR_VALUE = re.compile(rf"(?:(?i:bearer|basic|digest|token)\s+)?{_HELD}")
_LISTED = re.compile(rf"([\"'])({_KEY})\1(\s*,\s*)({_QUOTED})")
"""A header as a pair: ``(b'authorization', b'…')``, ``["x-api-key", "…"]``."""
_KEY_VALUE = re.compile(
    rf"((?i:\b(?:key|name))[\"']?\s*[:=]\s*[\"']?)({_KEY})"
    rf"([\"']?\s*,?\s*[\"']?(?i:value)[\"']?\s*[:=]\s*)({_HELD})"
)
"""Name and value as fields: ``{"key": "password", "value": …}``, ``name="token" value="…"``."""
_ELEMENT = re.compile(r"(<([A-Za-z][\w:.-]{1,63})(?:\s[^<>]*)?>)[^<>]+(?=</)")
_FOLLOWED = re.compile(
    rf"{_START}(--?)?({_PREFIX}(?=[\w.-]*(?i:pass|pwd|tok|secret|cred|key|cookie|jeton|jwt|otp)){_KEY})"
    r"(\s+(?:is\s+|was\s+)?[\"'`]?)"
    rf"({_OPAQUE}|(?<=\s)[^\s\"'`=:-][^\s\"'`]*)"
)
SHAPES = (
    r"\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_\w{20,}|github_pat_\w{20,}|gl(?:pat|dt|rt|cbt|ptt|soat|oas|agent|ft|imt)-[\w-]{16,}"
    r"|xox[abeoprs]-[\w-]{10,}|AIza[\w-]{30,}|[srp]k_(?:live|test)_\w{10,}|sk-[\w-]{20,}"
    r"|npm_\w{30,}|pypi-[\w-]{16,}|hf_\w{20,}|do[opr]_v1_\w{32,}|SG\.[\w-]{16,}\.[\w-]{16,}"
    r"|whsec_\w{20,}|ya29\.[\w-]{20,}|dckr_pat_[\w-]{20,}|gl(?:sa|c)_\w{20,}|hv[sbr]\.[\w-]{20,}"
    r"|shp(?:at|ca|pa|ss)_\w{20,}|sq0\w{3}-[\w-]{20,}|figd_[\w-]{20,}|lin_api_\w{10,}"
    r"|AGE-SECRET-KEY-1\w{10,}|v[1-4]\.(?:local|public)\.[\w-]{10,}"
    r"|(?:standard|dynamic)_[0-9a-f]{32,}|[0-9a-f]{160,}"
    r"|[0-9A-F]{32}(?:[0-9A-F]{32})?)"
)
"""Credentials recognised by their format: upper-case hexadecimal is a REDCap token, very long
hexadecimal an Appwrite key."""
_SHAPED = re.compile(rf"{SHAPES}(?![\w-])")


def value(key: str, found: Any) -> Any:
    """Return *found*, a JSON value, redacted under *key*; attributes are an object under no key."""
    if is_personal(key) and not isinstance(found, bool):
        return REDACTED
    if is_credential(key) and _holds_text(found):
        return REDACTED
    return _cleaned(found)


def plain(found: Any) -> Any:
    """Return *found* as a JSON value, so that the rule finds every text in it."""
    match found:
        case str() | bool() | None:
            return found
        case int():
            return found if abs(found) < _LARGE else f"{found:#x}"
        case float():
            return found if math.isfinite(found) else str(found)
        case Message():
            return MessageToDict(sensitivity.without_personal(found))
        case Mapping():
            return {str(key): plain(one) for key, one in found.items()}
        case bytes() | bytearray() | memoryview():
            return bytes(found).decode(errors="backslashreplace")
        case list() | tuple() | set() | frozenset():
            return [plain(one) for one in found]
    return str(found)


def _holds_text(found: Any) -> bool:
    if isinstance(found, dict):
        return any(map(_holds_text, found.values()))
    if isinstance(found, list):
        return any(map(_holds_text, found))
    return isinstance(found, str) and bool(found)


def _cleaned(found: Any) -> Any:
    match found:
        case str():
            return clean(found)
        case list():
            return [_cleaned(one) for one in found]
        case dict():
            return {clean(key): value(key, one) for key, one in found.items()}
    return found


def clean(text: str) -> str:
    """Return *text* without credentials, e-mail addresses and query strings."""
    if len(text) > 256:
        return _clean(text)
    # Ids in lower-case hexadecimal differ each time, and no rule applies to such short ones.
    if len(text) < 160 and text.isalnum() and text.islower() and text.isascii():
        return text
    return _clean_short(text)


def cut(text: str, length: int) -> str:
    """Return the start of *text*, redacted, at most *length* characters.

    It is cut after it was redacted, since a credential may be recognised by what follows it.
    """
    if len(text) <= length:
        return clean(text)[:length]
    cleaned = clean(text[: length + _FOLLOWING])
    return cleaned[:length] if len(text) <= length + _FOLLOWING else cleaned[:-_FOLLOWING][:length]


def _clean(text: str) -> str:
    if not (_SUSPECT.search(text) or (" " in text and _may_name(text))):
        return text
    text = _without_secrets(text)
    decoded = text
    for _ in range(_DECODED_AT_MOST):
        if not _ENCODED.search(decoded):
            break
        decoded = _decoded(decoded)
        cleaned = _without_secrets(decoded)
        if cleaned != decoded:
            # The decoded text is stored: the encoded one would have to be redacted by guessing.
            text = decoded = cleaned
    return text


def _may_name(text: str) -> bool:
    """Return whether *text* may contain the name of a credential; a cheap check."""
    lowered = text.lower()
    return not text.isascii() or any(part in lowered for part in _PARTS_OF_NAMES)


def _decoded(text: str) -> str:
    """Return *text* with one layer of percent-encoding, escapes and entities removed."""
    text = _ESCAPED.sub(lambda m: chr(int(m[1], 16)) if m[1] else m[2] or " ", text)
    return html.unescape(urllib.parse.unquote(text))


def _without_secrets(text: str) -> str:
    if "-----BEGIN" in text:
        text = _PEM.sub(REDACTED, text)
    if "eyJ" in text:
        text = _JWT.sub(REDACTED, text)
    named = _may_name(text)
    if "igest" in text or "IGEST" in text:
        text = _DIGEST.sub(rf"\1{REDACTED}", text)
    text = _SCHEME.sub(rf"\1 {REDACTED}", text)
    if named:
        text = _HEADER.sub(rf"\1{REDACTED}", text)
    if "@" in text:
        text = _USERINFO.sub(rf"\1{REDACTED}@", text)
        text = _LOGIN.sub(f"{REDACTED}@", text)
    if "?" in text or "#" in text:
        text = _BARE_QUERY.sub(f"?{REDACTED}", _QUERY.sub(_without_query, text))
    if "@" in text or "%40" in text or "＠" in text:
        text = _EMAIL.sub(REDACTED, text)
    if " " in text:
        text = _OPTION.sub(rf"\1{REDACTED}", text)
    return _SHAPED.sub(REDACTED, _without_named(text) if named else text)


def _without_named(text: str) -> str:
    """Return *text* without what follows the name of a credential."""
    text = _HOST_COOKIE.sub(rf"\1{REDACTED}", _COOKIES.sub(rf"\1{REDACTED}", text))
    if "=" in text or ":" in text or "＝" in text:
        text = _KEY_VALUE.sub(_without_value, _without_pairs(text))
    if "," in text:
        text = _LISTED.sub(_without_listed, text)
    if "</" in text:
        text = _ELEMENT.sub(_without_content, text)
    return _FOLLOWED.sub(_without_next, text) if " " in text else text


_clean_short = functools.lru_cache(maxsize=16_384)(_clean)


def _without_query(found: re.Match[str]) -> str:
    address, mark, rest = found.groups()
    # A fragment is an anchor unless it contains parameters.
    if not re.search(r"[=\w]", rest) or (mark == "#" and "=" not in rest and "?" not in rest):
        return found[0]
    return f"{address}{mark}{REDACTED}"


def _without_pairs(text: str) -> str:
    parts: list[str] = []
    done = at = 0
    while found := _PAIR.search(text, at):
        key, between = found.groups()
        at = found.end()
        if not is_credential(key) or (key.lower() in {"pass", "sid"} and "=" not in between):
            continue
        held = _PAIR_VALUE.match(text, at)
        if held:
            at = held.end()
            if _is_secret(key, between, held[0]):
                parts += text[done : found.end()], _quoted(held[0])
                done = at
    return "".join([*parts, text[done:]])


def _is_secret(key: str, between: str, held: str) -> bool:
    """Return whether *held*, which follows the name of a credential, is one."""
    bare = _bare(held)
    if not bare or bare.partition(" ")[0] in _PROSE or _PLACEHOLDER.fullmatch(held):
        return False
    secret = not _PASSWORDS.isdisjoint(words_of(key))
    if not secret and re.fullmatch(r"[\d.,\s]+%?", bare):
        return False
    if held[0] in "[{" and not re.search(
        r"[^\W\d_]", re.sub(r"[\w\"'.-]+\s*[:=]|\b(?:true|false|null)\b", "", held)
    ):
        return False
    is_word = held.isalpha() and held.islower()
    return not (":" in between and not secret and between[-1].isspace() and is_word)


def _bare(held: str) -> str:
    """Return what a quoted or bracketed value contains, in lower case."""
    return held.removeprefix("b").strip("\"'`[](){}<>\\ ").rstrip(".!?:").lower()


def _quoted(held: str) -> str:
    """Return the mark for a redacted value, in the quotes of the value."""
    mark = held[0] if held[0] in "\"'`" else ""
    return f"{mark}{REDACTED}{mark}"


def _without_value(found: re.Match[str]) -> str:
    start, key, between, held = found.groups()
    if not is_credential(key) or not _bare(held):
        return found[0]
    return f"{start}{key}{between}{_quoted(held)}"


def _without_listed(found: re.Match[str]) -> str:
    quote, key, between, held = found.groups()
    # A list of names, such as columns, is not a pair of a name and a value.
    if not is_credential(key) or re.fullmatch(r"[a-z_-]*", _bare(held)):
        return found[0]
    return f"{quote}{key}{quote}{between}{_quoted(held)}"


def _without_content(found: re.Match[str]) -> str:
    return f"{found[1]}{REDACTED}" if is_credential(found[2]) else found[0]


def _without_next(found: re.Match[str]) -> str:
    option, key, between, held = found.groups(default="")
    if not is_credential(key) or held.lower() in _PROSE:
        return found[0]
    # After an option, anything is its value; in a sentence, only what is not a word.
    if not option and not re.fullmatch(_OPAQUE, held.rstrip(".,;:!?)")):
        return found[0]
    return f"{option}{key}{between}{REDACTED}"
