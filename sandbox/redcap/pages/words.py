"""
What the pages say, in the study's language.
"""

from collections.abc import Mapping

_FRENCH = {
    "lang": "fr",
    "submit": "Envoyer",
    "save": "Enregistrer et revenir plus tard",
    "refresh": "Mettre à jour les questions",
    "refresh_why": (
        "Sans JavaScript, certaines questions n'apparaissent qu'après une mise à jour. "
        "Ajoutez les documents en dernier."
    ),
    "next": "Page suivante",
    "previous": "Page précédente",
    "page": "Page {page} sur {pages}",
    "required": "réponse obligatoire",
    "required_note": "Les questions marquées d'une étoile sont obligatoires.",
    "choose": "Choisissez",
    "yes": "Oui",
    "no": "Non",
    "true": "Vrai",
    "false": "Faux",
    "faults": "Le formulaire n'est pas envoyé : {count} réponse(s) à revoir.",
    "missing": "Cette réponse est obligatoire.",
    "format": "Cette réponse n'a pas le format attendu.",
    "size": "Ce document est trop volumineux.",
    "stored_file": "Document enregistré :",
    "remove_file": "Retirer ce document",
    "sign_type": "Ou tapez vos prénom et nom pour signer :",
    "sign_file": "Image de votre signature",
    "thanks_title": "Réponses enregistrées",
    "thanks": "Merci, vos réponses sont enregistrées.",
    "done_title": "Questionnaire déjà rempli",
    "done": "Ce questionnaire est déjà rempli. Vous pouvez fermer cette page.",
    "closed_title": "Questionnaire fermé",
    "closed": "Ce questionnaire n'accepte plus de réponses.",
    "unknown_title": "Questionnaire introuvable",
    "unknown": "Ce questionnaire n'est pas disponible. Vérifiez le lien reçu.",
    "saved_title": "Réponses gardées",
    "saved": "Vos réponses sont gardées. Pour les reprendre, ouvrez le même lien avec ce code :",
    "code_title": "Reprendre le questionnaire",
    "code": "Code de reprise",
    "code_wrong": "Ce code n'est pas le bon.",
    "code_send": "Reprendre",
    "queue_title": "Vos questionnaires",
    "queue_empty": "Aucun questionnaire à remplir pour l'instant.",
    "queue_done": "rempli",
    "queue_open": "à remplir",
    "pdf": "Télécharger vos réponses (PDF)",
}

_ENGLISH = {
    "lang": "en",
    "submit": "Submit",
    "save": "Save & Return Later",
    "refresh": "Update the questions",
    "refresh_why": (
        "Without JavaScript some questions appear only after an update. Add documents last."
    ),
    "next": "Next page",
    "previous": "Previous page",
    "page": "Page {page} of {pages}",
    "required": "must provide value",
    "required_note": "Questions with a star must be answered.",
    "choose": "Choose",
    "yes": "Yes",
    "no": "No",
    "true": "True",
    "false": "False",
    "faults": "The form was not submitted: {count} answer(s) to look at.",
    "missing": "This answer is required.",
    "format": "This answer does not have the expected format.",
    "size": "This document is too large.",
    "stored_file": "Stored document:",
    "remove_file": "Remove this document",
    "sign_type": "Or type your full name to sign:",
    "sign_file": "Image of your signature",
    "thanks_title": "Answers stored",
    "thanks": "Thank you, your answers are stored.",
    "done_title": "Survey already completed",
    "done": "This survey is already completed. You may close this page.",
    "closed_title": "Survey closed",
    "closed": "This survey takes no more answers.",
    "unknown_title": "Survey not available",
    "unknown": "This survey is not available. Check the link that you were sent.",
    "saved_title": "Answers kept",
    "saved": "Your answers are kept. To go on, open the same link and enter this code:",
    "code_title": "Go on with the survey",
    "code": "Return code",
    "code_wrong": "This is not the code.",
    "code_send": "Go on",
    "queue_title": "Your surveys",
    "queue_empty": "No survey to fill for now.",
    "queue_done": "completed",
    "queue_open": "to fill",
    "pdf": "Download your answers (PDF)",
}


def words(*, french: bool) -> Mapping[str, str]:
    """Every phrase by its name."""
    return _FRENCH if french else _ENGLISH
