"""The reasons for which only this service refuses; see ``protos/amarre/survey/v1``."""

from mesh.chassis.errors import MeshError, UpstreamError


class ConsentRequiredError(MeshError):
    """A request was to be created without consent to the processing of personal data."""

    area = "survey"
    reason = "CONSENT_REQUIRED"

    def __init__(self) -> None:
        super().__init__(
            "A request holds personal data: it is created only with consent to their processing."
        )


class OpenRequestExistsError(MeshError):
    """The user has a request whose form is not complete, or one is being created."""

    area = "survey"
    reason = "OPEN_REQUEST_EXISTS"

    def __init__(self) -> None:
        super().__init__("There is a request whose form is not complete; complete it first.")


class IdempotencyKeyReusedError(MeshError):
    """The idempotency key was used for a creation with other input."""

    area = "survey"
    reason = "IDEMPOTENCY_KEY_REUSED"

    def __init__(self) -> None:
        super().__init__(
            "The idempotency key was used with other input within 24 hours; choose a new key."
        )


class InvalidUrlError(MeshError):
    """REDCap gave something that is no link where a link was asked for."""

    area = "survey"
    reason = "INVALID_URL"

    def __init__(self) -> None:
        super().__init__("REDCap answered something that is no http or https URL.")


class InvalidRowError(UpstreamError):
    """One row of an export cannot be read; the rows of other users may be fine."""


class RefusedError(UpstreamError):
    """REDCap has understood and said no: nothing was stored."""
