"""mTLS from SVID files: credentials that servers reload, and a version for clients.

An SVID folder holds ``tls.crt``, ``tls.key`` and ``ca.crt``. It is replaced as a whole by moving
its ``..data`` link, as Kubernetes does with mounted secrets.
"""

import contextlib
import functools
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

from mesh.chassis.credentials.secret_files import SecretFileError, check_private

FILES = ("tls.crt", "tls.key", "ca.crt")


class SvidFilesError(Exception):
    """The folder of an SVID lacks a file or cannot be read; the message says what to do."""


@dataclass(frozen=True)
class SvidFiles:
    """The folder of one SVID."""

    folder: Path

    def version(self) -> str:
        """Return a value that changes when the SVID is replaced; cheap enough for every handshake.

        Raises:
            SvidFilesError: A file is missing or unreadable.
        """
        # Runs for each call: `os` is ten times faster here than `pathlib`.
        with contextlib.suppress(OSError):
            return os.readlink(self._link)  # noqa: PTH115
        try:
            return str(max(os.stat(name).st_mtime_ns for name in self._files))  # noqa: PTH116
        except OSError as exc:
            raise _unreadable(exc) from exc

    @functools.cached_property
    def _link(self) -> str:
        return str(self.folder / "..data")

    @functools.cached_property
    def _files(self) -> tuple[str, ...]:
        return tuple(str(self.folder / name) for name in FILES)

    def read(self) -> tuple[bytes, bytes, bytes]:
        """Return chain, key and trust bundle as PEM.

        Raises:
            SvidFilesError: A file is missing or unreadable.
        """
        try:
            chain, key, bundle = ((self.folder / name).read_bytes() for name in FILES)
            check_private("AMARRE_SVID_DIR", self.folder / "tls.key")
        except SecretFileError as exc:
            raise SvidFilesError(str(exc)) from exc
        except OSError as exc:
            raise _unreadable(exc) from exc
        return chain, key, bundle


def _unreadable(exc: OSError) -> SvidFilesError:
    return SvidFilesError(
        f"{exc.filename}: {exc.strerror}. Set AMARRE_SVID_DIR to a folder with "
        f"{', '.join(FILES)}, or issue one with `amarre certs issue`."
    )


def server_credentials(files: SvidFiles, check: Callable[[bytes], None]) -> grpc.ServerCredentials:
    """Return credentials that require a client certificate and reload replaced files.

    Args:
        files: The SVID.
        check: Raises `SvidFilesError` for a chain, PEM, that must not be presented.

    Raises:
        SvidFilesError: A file is missing or unreadable, or *check* refuses the certificate. Later,
            such files are ignored, and the current certificate stays.
    """
    current = files.version()
    refused = ""

    def configuration() -> grpc.ServerCertificateConfiguration:
        chain, key, bundle = files.read()
        check(chain)
        return grpc.ssl_server_certificate_configuration([(key, chain)], bundle)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        # gRPC calls this for each handshake, on a separate thread: it is cheap and never raises.
        nonlocal current, refused
        version = ""
        try:
            version = files.version()
            if version == current:
                return None
            fresh = configuration()
        except (OSError, SvidFilesError) as exc:
            if version != refused:
                logging.getLogger(__name__).warning("the certificate is not replaced: %s", exc)
            refused = version
            return None
        current = version
        return fresh

    return grpc.dynamic_ssl_server_credentials(
        configuration(),
        fetch,  # type: ignore[arg-type] # None keeps the present one; the stubs leave that out.
        require_client_authentication=True,
    )


def channel_credentials(files: SvidFiles) -> grpc.ChannelCredentials:
    """Return client credentials from the current files; gRPC clients cannot reload them."""
    chain, key, bundle = files.read()
    return grpc.ssl_channel_credentials(bundle, key, chain)
