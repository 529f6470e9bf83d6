"""The errors that only Health gives; codes and statuses stand in its contract."""

from mesh.chassis.errors import MeshError


class InvalidParametersError(MeshError):
    """The host or the time-out cannot be used."""

    area = "health"
    reason = "INVALID_PARAMETERS"


class HostNotAllowedError(MeshError):
    """The host is not on the allow-list, or leads to an address that may not be probed."""

    area = "health"
    reason = "HOST_NOT_ALLOWED"


class OfflineError(MeshError):
    """The host does not answer; the probe is among the details."""

    area = "health"
    reason = "OFFLINE"
