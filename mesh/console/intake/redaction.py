"""
The redaction rule: credentials and personal data that are never stored.

It is the second line of defence behind the processes themselves and applies to every text of
every signal: names, attributes, bodies, events, links and metric labels. Credentials are
recognised by attribute name, in any case style, and by pattern in any text; personal data by the
field names of the contracts, and e-mail addresses by pattern. Numbers and booleans are never
credentials.
"""

import functools
import itertools
import re
from typing import Any

from google.protobuf.descriptor import FileDescriptor

from mesh.contract import policy, sensitivity

REDACTED = "[redacted]"

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CREDENTIALS = _words(
    "password passwords passwd pwd pw passphrase passcode secret secrets token tokens "
    "authorization cookie cookies credential credentials apikey jwt otp totp sessionid phpsessid "
    "jsessionid bearer"
)
_KEYS = _words("api private access secret signing encryption master shared session")
"""Words that make a ``key`` a credential: ``api_key``, ``privateKey``."""
_DESCRIBES = _words(
    "count type name kind length size age expiry expires expired policy changed enabled required "
    "valid status result scheme limit used usage version algorithm issuer lifetime ttl seconds ms "
    "at present missing error reason audience format"
)
"""Last words of attributes that describe a credential without holding it: ``token_type``."""
_PROSE = _words(
    "required missing invalid expired wrong none null nil empty unknown true false yes no ok "
    "changed accepted rejected refused revoked valid not is was are must should cannot has too "
    "the a an incorrect denied absent present optional disabled enabled failed malformed mismatch "
    "unset set default does for in of from already and or on off undefined redacted hidden masked"
)
"""Words that follow ``token:`` in sentences and are not credentials."""
_PASSWORDS = _words("password passwd pwd pw pass passphrase passcode secret otp totp")
"""Names after which even a number in a text is a credential: ``password=123456``."""
_PERSONS = frozenset(
    {"client.address", "source.address", "peer.address", "http.client_ip", "net.peer.ip"}
    | {"net.sock.peer.addr", "network.peer.address", "user_agent.original", "enduser.id"}
)
"""OpenTelemetry and Envoy attributes that identify the user."""
_QUERIES = frozenset({"url.query", "http.query", "url.fragment", "http.request.query"})
"""Attributes that hold a bare query string; redacted like the query of a URL."""
_PLAIN = {"title", "url", "steps", "fields", "data", "device", "filename"}
"""Field names so common that an attribute of that name does not imply personal data."""
_OURS = {"amarre", "request", "response", "user", *policy.SERVICES}
"""The namespaces in which attributes may be named after contract fields."""

_SUSPECT = re.compile(
    r"[@?=#:]|%40|eyJ|-----|[0-9A-F]{32}|[_-]|\b[Bb](?:earer|asic)\b|AKIA|AIza|SG\."
)
"""A pattern that every text matched by a rule below contains; keeps ordinary values cheap."""
_PEM = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
_SCHEME = re.compile(
    # A word after "Bearer" is a credential if it is long or contains a digit or inner capital.
    r"\b((?i:bearer|basic|digest|negotiate))\s+"
    r"(?=[\w.~+/=-]*\d|\w[\w.~+/=-]*[A-Z]|[\w.~+/=-]{16}|[\w.~+/-]{6,}=)[\w.~+/=-]{6,}"
)
_JWT = re.compile(r"\beyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*){1,3}")
_USERINFO = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#\"'<>]+@(?=[^\s@])")
_LOGIN = re.compile(r"(?<![\w/])[\w.-]+:[^\s:@/\"']{3,}@(?=[\w.-]+:\d)")
_QUERY = re.compile(
    r"((?:\b[A-Za-z][A-Za-z0-9+.-]*://|(?<![\w?/.])/)[^\s?#\"'<>]*)([?#])(?=[^\s\"'<>]*[=\w])"
    r"[^\s\"'<>]+"
)
_EMAIL = re.compile(
    r"(?:\"[^\"\s]{1,64}\"|[\w.!#$%&'*+/=?^`{|}~-]{1,64})(?:@|%40)"
    r"(?:[\w-]+\.)+(?!(?:png|jpe?g|gif|svg|webp|ico|css|js|ts|json|html|xml|ya?ml|txt|log|jar|whl"
    r"|gz|dll|map)\b)(?:[^\W\d_]{2,24}|xn--[\w-]+)(?![\w-])"
)
_COOKIES = re.compile(r"((?i:\b(?:set-)?cookie)[\"']?\s*[:=]\s*[\"']?)[^\s=;\"']+=[^\r\n\"']*")
_HOST_COOKIE = re.compile(r"(__(?:Host|Secure)-[\w-]+=)[^\s;\"']+")
_PAIR = re.compile(
    r"(?<![\w.-])([A-Za-z][\w.-]{1,63})([\"']?\s{0,3}(?:=|:|=>)\s{0,3}[\"']?)"
    r"((?:(?i:bearer|basic|digest|token)\s+)?[^\s\"'&;,(){}<>\[\]]+)"
)
_SHAPES = re.compile(
    r"\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
    r"|xox[abeoprs]-[\w-]{10,}|AIza[\w-]{30,}|[srp]k_(?:live|test)_\w{10,}|sk-[\w-]{20,}"
    r"|npm_\w{30,}|pypi-[\w-]{16,}|hf_\w{20,}|dop_v1_\w{32,}|SG\.[\w-]{16,}\.[\w-]{16,}"
    r"|[0-9A-F]{32}(?:[0-9A-F]{32})?)(?![\w-])"
)
"""Credentials recognised by their format; upper-case hexadecimal is a REDCap token."""


@functools.lru_cache(maxsize=8192)
def is_credential(key: str) -> bool:
    """Return whether an attribute named *key* holds a credential, by the words of its name."""
    words = [word.lower() for word in _WORD.findall(key)]
    if not words or words[-1] in _DESCRIBES:
        return False
    pairs = itertools.pairwise(words)
    return (
        not _CREDENTIALS.isdisjoint(words)
        or any(first in _KEYS and second in {"key", "keys"} for first, second in pairs)
        or key.startswith(("__Host-", "__Secure-"))
    )


@functools.lru_cache(maxsize=8192)
def is_personal(key: str) -> bool:
    """Return whether an attribute named *key* identifies a person."""
    lowered = key.lower()
    prefix, _, name = key.rpartition(".")
    if lowered in _PERSONS or lowered in _QUERIES:
        return True
    # service.name is not a person's name: contract fields do not apply to OpenTelemetry namespaces.
    ours = not prefix or prefix.lower().partition(".")[0] in _OURS
    return ours and "_".join(word.lower() for word in _WORD.findall(name)) in _personal()


def value(key: str, found: Any) -> Any:
    """Return *found*, a JSON value, redacted for storage under *key*."""
    if is_personal(key) and not isinstance(found, bool):
        return REDACTED
    if is_credential(key) and _holds_text(found):
        return REDACTED
    return _cleaned(found)


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
    return _clean_short(text) if len(text) <= 256 else _clean(text)


def _clean(text: str) -> str:
    if not _SUSPECT.search(text):
        return text
    if "-----BEGIN" in text:
        text = _PEM.sub(REDACTED, text)
    if "eyJ" in text:
        text = _JWT.sub(REDACTED, text)
    text = _SCHEME.sub(rf"\1 {REDACTED}", text)
    if "@" in text:
        text = _USERINFO.sub(rf"\1{REDACTED}@", text)
        text = _LOGIN.sub(f"{REDACTED}@", text)
    if "?" in text or "#" in text:
        text = _QUERY.sub(_without_query, text)
    if "@" in text or "%40" in text:
        text = _EMAIL.sub(REDACTED, text)
    if "=" in text or ":" in text:
        text = _HOST_COOKIE.sub(rf"\1{REDACTED}", _COOKIES.sub(rf"\1{REDACTED}", text))
        text = _PAIR.sub(_without_credential, text)
    return _SHAPES.sub(REDACTED, text)


_clean_short = functools.lru_cache(maxsize=16_384)(_clean)


def _without_query(found: re.Match[str]) -> str:
    address, mark = found[1], found[2]
    # A fragment is an anchor unless it contains parameters.
    if mark == "#" and "=" not in found[0] and "?" not in found[0]:
        return found[0]
    return f"{address}{mark}{REDACTED}"


def _without_credential(found: re.Match[str]) -> str:
    key, between, held = found[1], found[2], found[3]
    words = {word.lower() for word in _WORD.findall(key)}
    if not (is_credential(key) or (key.lower() in {"pass", "sid"} and "=" in between)):
        return found[0]
    bare = held.rstrip(".!?:").lower()
    if bare in _PROSE or not bare or held.startswith(REDACTED[1:-1]):
        return found[0]
    secret = not _PASSWORDS.isdisjoint(words)
    if not secret and re.fullmatch(r"[\d.]+%?", bare):
        return found[0]
    if ":" in between and not secret and " " in between and re.fullmatch(r"[a-z]+", bare):
        return found[0]
    return f"{key}{between}{REDACTED}"


@functools.cache
def _personal() -> frozenset[str]:
    """Return the names of all fields that a contract marks as personal or secret."""
    files = {method.descriptor.containing_service.file for method in policy.load()}
    files |= {used for file in files for used in file.dependencies if used.package == file.package}
    return frozenset(name for file in files for name in _sensitive(file)) - _PLAIN


def _sensitive(file: FileDescriptor) -> set[str]:
    return {
        field.name
        for message in file.message_types_by_name.values()
        for field in message.fields
        if sensitivity.of(field)
    }
