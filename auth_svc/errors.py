"""Errors of Auth, in addition to those of every service.

MeshError
├── InvalidEmailError          the address cannot receive a link
└── InvalidCredentialsError    the link or the passkey does not work, for any reason
"""

from mesh.chassis.errors import MeshError


class InvalidEmailError(MeshError):
    """The address is malformed, or its domain is not allowed."""

    area = "auth"
    reason = "INVALID_EMAIL"


class InvalidCredentialsError(MeshError):
    """The link is unknown, used, replaced or expired, or the passkey is not accepted.

    The error does not reveal which.
    """

    area = "auth"
    reason = "INVALID_CREDENTIALS"

    def __init__(self) -> None:
        super().__init__("This link or passkey is invalid or has expired; request a new link.")
