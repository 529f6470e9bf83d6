"""What Auth answers beyond the errors of every service.

MeshError
├── InvalidEmailError          the address cannot have a link
└── InvalidCredentialsError    the link does not work, for whatever reason
"""

from mesh.chassis.errors import MeshError


class InvalidEmailError(MeshError):
    """The address is malformed, or its domain is not one of those allowed."""

    area = "auth"
    reason = "INVALID_EMAIL"


class InvalidCredentialsError(MeshError):
    """The link is unknown, used, replaced or too old; nobody learns which."""

    area = "auth"
    reason = "INVALID_CREDENTIALS"

    def __init__(self) -> None:
        super().__init__("This link does not work, or no longer does; ask for a new one.")
