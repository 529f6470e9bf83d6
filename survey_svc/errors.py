"""Errors that only this service raises; see ``protos/amarre/survey/v1``."""

from mesh.chassis.errors import MeshError, UpstreamError


class ConsentRequiredError(MeshError):
    """Consent to the processing of personal data is missing."""

    area = "survey"
    reason = "CONSENT_REQUIRED"

    def __init__(self) -> None:
        super().__init__("A request contains personal data and needs consent to its processing.")


class OpenRequestExistsError(MeshError):
    """The user has an incomplete request, or one is being created."""

    area = "survey"
    reason = "OPEN_REQUEST_EXISTS"

    def __init__(self) -> None:
        super().__init__("An earlier request has an incomplete form; complete it first.")


class IdempotencyKeyReusedError(MeshError):
    """The idempotency key was used with different input."""

    area = "survey"
    reason = "IDEMPOTENCY_KEY_REUSED"

    def __init__(self) -> None:
        super().__init__(
            "The idempotency key was used with different input within 24 hours; choose a new key."
        )


class InvalidUrlError(MeshError):
    """REDCap returned something other than a link."""

    area = "survey"
    reason = "INVALID_URL"

    def __init__(self) -> None:
        super().__init__("REDCap returned something that is not an http or https URL.")


class OperationFailedError(UpstreamError):
    """REDCap responded, but failed this operation or returned invalid content; others may work."""


class InvalidRowError(OperationFailedError):
    """One row of an export is invalid; the rows of other users may be valid."""


class RefusedError(UpstreamError):
    """REDCap rejected the operation; nothing was stored."""
