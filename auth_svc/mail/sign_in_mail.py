"""What the mail with a magic link says, in French and English."""

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
    """The sentences of the mail in one language; ``{minutes}`` is filled in."""

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
        invitation="Vous avez demandé à vous connecter à AMARRE, les demandes de mobilité"
        " internationale. Ce lien ouvre la page de connexion :",
        button="Se connecter",
        copy="Si le bouton ne fonctionne pas, copiez cette adresse dans votre navigateur :",
        validity="Il est valable {minutes} minutes et ne sert qu'une fois ; un lien plus récent"
        " le remplace.",
        ignore="Vous n'avez rien demandé ? Ignorez ce message : sans ce lien, personne ne peut"
        " se connecter à votre place.",
    ),
    "en": Words(
        subject="Your sign-in link for AMARRE",
        greeting="Hello,",
        invitation="You asked to sign in to AMARRE, the requests for international mobility."
        " This link opens the sign-in page:",
        button="Sign in",
        copy="If the button does not work, copy this address into your browser:",
        validity="It works for {minutes} minutes and only once; a newer link replaces it.",
        ignore="You did not ask for this? Then ignore this message: without the link nobody"
        " can sign in in your place.",
    ),
}


def sign_in_mail(
    to: str, url: str, *, language: str, lifetime: timedelta, expires_at: datetime
) -> Mail:
    """Return the letter that brings *url*; any *language* but ``en`` is French."""
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
