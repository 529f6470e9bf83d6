"""
Labels of points, by which time series are told apart.

Where something is redacted or left out, a pseudonym of the original takes its place, until the
console restarts.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from mesh.chassis.telemetry.pseudonym import pseudonym
from mesh.console.intake import otlp_attributes
from mesh.console.intake.otlp_attributes import Attributes, to_json
from mesh.contract import redaction

REST = "…"
"""The label with the pseudonym of all attributes of a point, some of which are left out."""


def of_point(pairs: Sequence[bytes], kept: Attributes) -> str:
    """Return the labels of a point as JSON; *pairs* are its attributes, and *kept* what is kept."""
    labels = dict(kept.values)
    if kept.were_cut:
        labels[REST] = _pseudonym(*sorted(pairs))
    elif any(redaction.REDACTED in text for text in kept.texts):
        for pair in pairs:
            ((key, value),) = otlp_attributes.read([pair]).values.items()
            labels[key] = _distinct(value, pair)
    return _sorted(labels)


def of_sample(labels: Mapping[str, str]) -> str:
    """Return the labels of a scraped sample as JSON."""
    return _sorted(
        {
            redaction.clean(key): _distinct(redaction.value(key, one), one.encode())
            for key, one in labels.items()
        }
    )


def _distinct(value: Any, original: bytes) -> Any:
    """Return *value*, with the pseudonym of its original if something of it is redacted."""
    text = value if isinstance(value, str) else to_json(value)
    return f"{text} {_pseudonym(original)}" if redaction.REDACTED in text else value


def _pseudonym(*originals: bytes) -> str:
    return pseudonym(hashlib.sha256(b"".join(originals)).hexdigest())


def _sorted(labels: Mapping[str, Any]) -> str:
    return to_json(dict(sorted(labels.items())))
