"""
Recognises the names of credentials and personal data, in any case style.

A name is judged by its words (``accessToken``, ``ACCESS_TOKEN``, ``access-token``) and, for styles
without word boundaries (``accesstoken``, ``PGPASSWORD``), by how all of its letters end.
"""

import functools
import itertools
import re
import unicodedata

from google.protobuf.descriptor import FileDescriptor

from mesh.contract import policy, sensitivity

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_STYLING = frozenset({"Mn", "Cf"})
"""Unicode categories that do not change how a name reads: accents and invisible characters."""


def words(text: str) -> frozenset[str]:
    """Return the words of *text*."""
    return frozenset(text.split())


CREDENTIALS = words(
    "password passwords passwd pwd pw passphrase passcode secret secrets token tokens "
    "authorization cookie cookies credential credentials creds apikey jwt otp totp sessionid "
    "phpsessid jsessionid bearer pin pincode cvv mdp jeton jetons passwort kennwort contrasena "
    "senha psk mnemonic"
)
ENDINGS = tuple(
    words(
        "password passwords passwd passphrase passcode secret secrets token tokens cookie cookies "
        "credential credentials authorization apikey apikeys accesskey secretkey privatekey "
        "privkey signingkey encryptionkey masterkey sharedkey accountkey sessionkey sshkey hmackey "
        "basicauth xauth motdepasse sessionid connectsid sharedaccesssignature"
    )
)
"""How the letters of a credential's name end, without separators; digits are ignored."""
SUFFIXES = ("value", "hash", "plain", "raw", "new", "old", "confirmation", "confirm")
_SUFFIX = re.compile(rf"(?:{'|'.join(SUFFIXES)})$")
_KEYS = words(
    "api private priv access secret signing encryption master shared session account ssh pgp gpg "
    "hmac tls ssl license deploy auth"
)
_CODES = words("recovery backup verification authorization auth mfa security confirmation")
_ACCOUNTS = words("db database user smtp proxy http truststore keystore admin root")
PAIRS = frozenset(
    {
        *itertools.product(_KEYS, ("key", "keys")),
        *itertools.product(_CODES, ("code", "codes")),
        *itertools.product(_ACCOUNTS, ("pass",)),
        *itertools.product(("basic", "proxy", "http", "x"), ("auth",)),
        *itertools.product(("amz", "goog", "access", "webhook"), ("signature",)),
        *itertools.product(("saml", "client"), ("assertion",)),
        *(("auth", "header"), ("code", "verifier"), ("magic", "link"), ("saml", "response")),
        *(("session", "id"), ("time", "code"), ("seed", "phrase")),
    }
)
"""Adjacent words that name a credential together: ``api_key``, ``recoveryCode``."""
WHOLE = words("pass sid sig _csrf csrf xsrf")
_DESCRIBES = words(
    "count type name kind length size age expiry expires expired policy changed enabled required "
    "valid status result scheme limit used usage version algorithm issuer lifetime ttl seconds ms "
    "at present missing error reason audience format file path filename dir provider domain "
    "samesite endpoint source strength encoding "
    "rounds authn verification validation"
)
"""Last words of names that describe a credential without holding it: ``token_type``."""
_SESSIONS = frozenset({"session.id", "session.previous_id"})
"""OpenTelemetry's identifiers of a visit, which open nothing."""
_PERSONS = frozenset(
    {"client.address", "source.address", "peer.address", "http.client_ip", "net.peer.ip"}
    | {"net.sock.peer.addr", "network.peer.address", "user_agent.original", "enduser.id"}
    | {"user.id", "user.name", "user.full_name", "user.email"}
)
"""OpenTelemetry and Envoy attributes that identify the user."""
PERSONAL_ENDINGS = (
    *("client_ip", "client_address", "remote_addr", "remote_address", "peer_ip", "real_ip"),
    *("forwarded_for", "header_forwarded", "user_agent", "user_email", "user_id"),
    *("first_name", "last_name", "full_name", "family_name", "given_name"),
    *("phone", "phone_number", "date_of_birth", "birth_date", "birthdate", "birthday"),
    *("iban", "card_number", "credit_card", "ssn"),
)
"""How names that identify a person end, as words joined by ``_``."""
QUERIES = frozenset({"url_query", "http_query", "url_fragment", "http_request_query"})
"""Attributes that hold a bare query string; redacted like the query of a URL."""
_PLAIN = {"title", "url", "steps", "fields", "data", "device", "filename"}
"""Field names so common that an attribute of that name does not imply personal data."""
_BARE = {"name"}
"""Field names that imply personal data only in a namespace of ours: labels of many libraries."""
_OURS = {"amarre", "request", "response", "user", *policy.SERVICES}
"""The namespaces in which attributes may be named after contract fields."""


@functools.lru_cache(maxsize=8192)
def is_credential(key: str) -> bool:
    """Return whether something named *key* is a credential."""
    found = words_of(key)
    if not found or found[-1] in _DESCRIBES or key.lower() in _SESSIONS:
        return False
    letters = _SUFFIX.sub("", "".join(word for word in found if not word.isdigit()))
    return (
        not CREDENTIALS.isdisjoint(found)
        or letters.endswith(ENDINGS)
        or not PAIRS.isdisjoint(itertools.pairwise(found))
        or key.lower() in WHOLE
        or key.startswith(("__Host-", "__Secure-"))
    )


@functools.lru_cache(maxsize=8192)
def is_personal(key: str) -> bool:
    """Return whether an attribute named *key* identifies a person."""
    prefix, _, name = key.rpartition(".")
    joined = "_".join(words_of(key))
    if key.lower() in _PERSONS or joined in QUERIES or joined.endswith(PERSONAL_ENDINGS):
        return True
    # service.name is not a person's name: contract fields do not apply to OpenTelemetry namespaces.
    ours = prefix.lower().partition(".")[0] in _OURS if prefix else joined not in _BARE
    return ours and "_".join(words_of(name)) in _of_contracts()


def words_of(name: str) -> list[str]:
    """Return the words of *name* in lower case, without accents and invisible characters."""
    if not name.isascii():
        name = "".join(
            each
            for each in unicodedata.normalize("NFKD", name)
            if unicodedata.category(each) not in _STYLING
        )
    return [word.lower() for word in _WORD.findall(name)]


def personal_names() -> frozenset[str]:
    """Return the exact names of what is personal: contract fields and standard attributes."""
    return _of_contracts() - _BARE | _PERSONS


@functools.cache
def _of_contracts() -> frozenset[str]:
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
