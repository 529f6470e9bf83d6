"""Which e-mail addresses may sign in, and the one form in which each is known."""

from collections.abc import Iterable

from email_validator import EmailNotValidError, ValidatedEmail, validate_email

from auth_svc.errors import InvalidEmailError


class AllowedDomains:
    """The domains whose addresses may sign in; compared whole, in their ASCII form."""

    def __init__(self, domains: Iterable[str]) -> None:
        """Keep *domains*, for instance ``example.org``; internationalised ones in either form.

        Raises:
            ValueError: A domain is none; the message names it.
        """
        self._domains = frozenset(_ascii_domain(domain) for domain in domains)

    def parse(self, text: str) -> str:
        """Return the address in *text*, lower-case and normalised.

        Mailboxes that differ by case alone count as one, and mail goes to the lower-case form,
        so that whoever gets the mail is who the account belongs to.

        Raises:
            InvalidEmailError: It is no address, or of another domain.
        """
        try:
            found = _parse(text)
        except EmailNotValidError as exc:
            raise InvalidEmailError("The text is no e-mail address.") from exc
        if found.ascii_domain.lower() not in self._domains:
            raise InvalidEmailError("The domain of the e-mail address is not allowed.")
        return found.normalized.lower()


def _parse(text: str) -> ValidatedEmail:
    return validate_email(text, check_deliverability=False, globally_deliverable=False, strict=True)


def _ascii_domain(domain: str) -> str:
    try:
        return _parse(f"someone@{domain.strip()}").ascii_domain.lower()
    except EmailNotValidError as exc:
        raise ValueError(f"{domain!r} is no domain: {exc}") from exc
