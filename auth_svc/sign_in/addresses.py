"""Validates and normalizes the e-mail addresses that may sign in."""

from collections.abc import Iterable

from email_validator import EmailNotValidError, ValidatedEmail, validate_email

from auth_svc.errors import InvalidEmailError


class AllowedDomains:
    """The domains whose addresses may sign in; exact matches in their ASCII form."""

    def __init__(self, domains: Iterable[str], *, beyond_ascii: bool = False) -> None:
        """Accept addresses in *domains*, given in Unicode or ASCII.

        *beyond_ascii* also accepts mailboxes such as ``josé``, which only mail servers with
        SMTPUTF8 deliver to (RFC 6531).

        Raises:
            ValueError: A domain is invalid; the message names it.
        """
        self._beyond_ascii = beyond_ascii
        self._domains = frozenset(_ascii_domain(domain) for domain in domains)

    def parse(self, text: str) -> str:
        """Return the address in *text*, in lower case and normalized.

        Mailboxes that differ only in case are the same account, and mail is sent to the lower-case
        form, so that the account belongs to its recipient.

        Raises:
            InvalidEmailError: The text is not an address, or the mail server cannot deliver to it.
        """
        try:
            found = _parse(text)
        except EmailNotValidError as exc:
            raise InvalidEmailError("The text is not an e-mail address.") from exc
        if not (self._beyond_ascii or found.local_part.isascii()):
            raise InvalidEmailError("The mailbox of the e-mail address must be ASCII.")
        if found.ascii_domain.lower() not in self._domains:
            raise InvalidEmailError("The domain of the e-mail address is not allowed.")
        return found.normalized.lower()


def _parse(text: str) -> ValidatedEmail:
    return validate_email(text, check_deliverability=False, globally_deliverable=False, strict=True)


def _ascii_domain(domain: str) -> str:
    try:
        return _parse(f"someone@{domain.strip()}").ascii_domain.lower()
    except EmailNotValidError as exc:
        raise ValueError(f"{domain!r} is not a domain: {exc}") from exc
