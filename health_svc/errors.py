"""Errors of the health service; codes and statuses are defined in its contract."""

from mesh.chassis.errors import MeshError


class InvalidParametersError(MeshError):
    """The host or the timeout is invalid."""

    area = "health"
    reason = "INVALID_PARAMETERS"


class HostNotAllowedError(MeshError):
    """The host is not on the allow-list, or resolves to an address that may not be probed."""

    area = "health"
    reason = "HOST_NOT_ALLOWED"


class OfflineError(MeshError):
    """The host does not respond; the details hold the probe."""

    area = "health"
    reason = "OFFLINE"
