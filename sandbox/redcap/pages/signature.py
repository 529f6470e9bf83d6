"""Signatures: drawn in the browser, typed, or uploaded as an image."""

import base64
import binascii
import io
from collections.abc import Iterable
from dataclasses import replace

from PIL import Image, ImageDraw, ImageFont

from sandbox.redcap.api.params import Upload
from sandbox.redcap.design.dictionary import Field
from sandbox.redcap.surveys.answering import Submission

_PNG = "data:image/png;base64,"
_MAX_NAME = 80
_MAX_DRAWN = 400_000


def signed(fields: Iterable[Field], submission: Submission) -> Submission:
    """Return the submission with drawn and typed signatures converted to documents."""
    uploads = dict(submission.uploads)
    for field in fields:
        name = field.field_name
        if not field.is_signature or name in uploads:
            continue
        image = _drawn(submission.texts.get(f"__drawn:{name}", "")) or _typed(
            submission.texts.get(f"__typed:{name}", "").strip()
        )
        if image:
            uploads[name] = Upload("signature.png", "image/png", image)
    return replace(submission, uploads=uploads)


def _drawn(text: str) -> bytes:
    if not text.startswith(_PNG) or len(text) > _MAX_DRAWN:
        return b""
    try:
        image = base64.b64decode(text.removeprefix(_PNG), validate=True)
    except binascii.Error:
        return b""
    return image if image.startswith(b"\x89PNG\r\n") else b""


def _typed(name: str) -> bytes:
    if not name:
        return b""
    canvas = Image.new("RGB", (600, 120), "white")
    ImageDraw.Draw(canvas).text(
        (20, 40), name[:_MAX_NAME], fill="navy", font=ImageFont.load_default(size=32)
    )
    out = io.BytesIO()
    canvas.save(out, "PNG")
    return out.getvalue()
