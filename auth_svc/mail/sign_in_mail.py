"""The mail with a magic link, in French and English."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from jinja2 import Environment, PackageLoader, select_autoescape

from auth_svc.ports import Mail

_TEMPLATES = Environment(
    loader=PackageLoader("auth_svc.mail"),
    autoescape=select_autoescape(("html",)),
    trim_blocks=True,
    keep_trailing_newline=True,
)


@dataclass(frozen=True)
class Words:
    """The sentences of the mail in one language; ``{minutes}`` is a placeholder."""

    subject: str
    greeting: str
    invitation: str
    button: str
    copy: str
    validity: str
    ignore: str


WORDS = {
    "fr": Words(
        subject="Votre lien de connexion à AMARRE",
        greeting="Bonjour,",
        invitation="Vous avez demandé à vous connecter à AMARRE, l'application des demandes de"
        " mobilité internationale. Ce lien ouvre la page de connexion :",
        button="Se connecter",
        copy="Si le bouton ne fonctionne pas, copiez cette adresse dans votre navigateur :",
        validity="Il est valable {minutes} minutes et ne peut servir qu'une seule fois. Si vous"
        " demandez un nouveau lien, celui-ci ne fonctionnera plus.",
        ignore="Si vous n'avez rien demandé, ignorez ce message : sans ce lien, personne ne peut"
        " se connecter à votre place.",
    ),
    "en": Words(
        subject="Your sign-in link for AMARRE",
        greeting="Hello,",
        invitation="You asked to sign in to AMARRE, the application for international mobility"
        " requests. This link opens the sign-in page:",
        button="Sign in",
        copy="If the button does not work, copy this address into your browser:",
        validity="It is valid for {minutes} minutes and can be used only once. If you ask for"
        " another link, this one stops working.",
        ignore="If you did not ask for this, ignore this message: without the link, nobody can"
        " sign in as you.",
    ),
}


def sign_in_mail(
    to: str, url: str, *, language: str, lifetime: timedelta, expires_at: datetime
) -> Mail:
    """Return the mail with the link *url*, in French unless *language* is ``en``."""
    chosen = "en" if language == "en" else "fr"
    words = WORDS[chosen]
    facts = {
        "language": chosen,
        "words": words,
        "validity": words.validity.format(minutes=round(lifetime.total_seconds() / 60)),
        "url": url,
    }
    return Mail(
        to=to,
        subject=words.subject,
        text=_TEMPLATES.get_template("sign_in.txt").render(facts),
        html=_TEMPLATES.get_template("sign_in.html").render(facts),
        useful_until=expires_at,
    )
