"""Validation of addresses."""

import pytest

from auth_svc.errors import InvalidEmailError
from auth_svc.sign_in.addresses import AllowedDomains

NAMES = ["example.org", " Universität.example.org", "uni.photography"]
DOMAINS = AllowedDomains(NAMES)

GOOD = [
    ("plain", "ada@example.org", "ada@example.org"),
    ("upper case", "Ada.Lovelace@EXAMPLE.Org", "ada.lovelace@example.org"),
    ("plus", "ada+amarre@example.org", "ada+amarre@example.org"),
    ("apostrophe", "o'brien@example.org", "o'brien@example.org"),
    ("long top-level domain", "ada@uni.photography", "ada@uni.photography"),
    ("internationalised", "ada@universität.example.org", "ada@universität.example.org"),
    ("its ASCII form", "ada@xn--universitt-y5a.example.org", "ada@universität.example.org"),
]

BEYOND_ASCII = [
    ("mailbox", "zoé@example.org", "zoé@example.org"),
    ("decomposed mailbox", "zoe\u0301@example.org", "zoé@example.org"),
    ("mailbox and domain", "José@universität.example.org", "josé@universität.example.org"),
]

BAD = [
    ("domain that goes on", "a@example.org.evil.com"),
    ("domain that begins before", "a@evilexample.org"),
    ("subdomain", "a@sub.example.org"),
    ("other domain", "a@example.com"),
    ("two dots", "a..b@example.org"),
    ("dot alone", ".@example.org"),
    ("dot at the end", "a.@example.org"),
    ("no mailbox", "@example.org"),
    ("no domain", "ada@"),
    ("no at", "example.org"),
    ("two ats", "a@evil.com@example.org"),
    ("name beside", "Ada <ada@example.org>"),
    ("quoted", '"a b"@example.org'),
    ("line break", "ada@example.org\nBcc: b@evil.com"),
    ("line break in the mailbox", "a\r\nBcc:b@example.org"),
    ("list", "a@example.org,b@example.org"),
    ("null", "a\0@example.org"),
    ("comment", "a(b)@example.org"),
    ("address literal", "a@[127.0.0.1]"),
    ("space around", " ada@example.org"),
    ("direction override", "a\u202eb@example.org"),
    ("too long", "a" * 65 + "@example.org"),
    ("empty", ""),
]


@pytest.mark.parametrize(("text", "expected"), [row[1:] for row in GOOD], ids=[r[0] for r in GOOD])
def test_address_is_normalised(text: str, expected: str) -> None:
    """An address of an allowed domain has one normal form, whatever its case and encoding."""
    assert expected == DOMAINS.parse(text)


@pytest.mark.parametrize(("text", "expected"), [r[1:] for r in BEYOND_ASCII])
def test_mailbox_beyond_ascii(text: str, expected: str) -> None:
    """A mailbox that needs SMTPUTF8 is rejected, or accepted if configured (RFC 6531)."""
    with pytest.raises(InvalidEmailError):
        DOMAINS.parse(text)

    assert expected == AllowedDomains(NAMES, beyond_ascii=True).parse(text)


@pytest.mark.parametrize("text", [row[1] for row in BAD], ids=[row[0] for row in BAD])
def test_address_is_refused(text: str) -> None:
    """A text that is not an address of an allowed domain is rejected."""
    with pytest.raises(InvalidEmailError) as ei:
        DOMAINS.parse(text)

    assert "invalid_email" == ei.value.contract.code
    assert not text or text not in str(ei.value)


@pytest.mark.parametrize("domain", ["", "exa mple.org", "@example.org", "*.example.org", "-a.org"])
def test_bad_domain_in_the_settings(domain: str) -> None:
    """A setting that is not a domain is rejected by name."""
    with pytest.raises(ValueError, match="is not a domain"):
        AllowedDomains([domain])
