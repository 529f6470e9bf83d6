"""Data folder of a local mesh: the paths of all its files."""

import hashlib
import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mesh.local import files

_LONGEST_SOCKET_FOLDER = 70
"""Unix socket paths end at 107 bytes; the names below the folder take up to 37."""


class DataFolderError(Exception):
    """The data folder cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class DataFolder:
    """The files of one local mesh."""

    data: Path

    @property
    def certs(self) -> Path:
        """One SVID folder per workload."""
        return self.data / "certs"

    @property
    def ca(self) -> Path:
        """The local authority."""
        return self.data / "ca"

    @property
    def logs(self) -> Path:
        """One log file per process."""
        return self.data / "logs"

    @property
    def state(self) -> Path:
        """Databases."""
        return self.data / "state"

    @property
    def scraped(self) -> Path:
        """The scrape targets of the console, as JSON; rewritten as instances come and go."""
        return self.state / "scraped.json"

    @property
    def envoy(self) -> Path:
        """One folder of configuration per proxy."""
        return self.data / "envoy"

    @property
    def ready(self) -> Path:
        """The ready file: what runs, with URLs and tokens."""
        return self.data / "ready.json"

    @property
    def lock(self) -> Path:
        """Locked while a mesh runs from this folder."""
        return self.data / "lock"

    @property
    def sockets(self) -> Path:
        """Unix sockets, accessible by the current user only.

        Below the data folder if its path is short enough for a socket, else in a temporary folder
        that belongs to it.
        """
        below = self.data / "run"
        if len(os.fsencode(below)) <= _LONGEST_SOCKET_FOLDER:
            return below
        digest = hashlib.sha256(os.fsencode(self.data)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"amarre-{os.getuid()}-{digest}"

    @property
    def control(self) -> Path:
        """The socket on which the runner accepts control actions."""
        return self.sockets / "control.sock"

    def secret(self, name: str) -> Path:
        """Return the file of a secret."""
        return self.data / "secrets" / name

    def prepare(self) -> None:
        """Create the folders and the secrets that are missing or empty.

        Raises:
            DataFolderError: The folder cannot be written.
        """
        try:
            self.make_folders()
            if self.sockets.stat().st_uid != os.getuid():
                raise DataFolderError(
                    f"{self.sockets} belongs to another user. Choose another --data DIR."
                )
            self._make_secrets()
        except OSError as exc:
            raise DataFolderError(
                f"The data folder {self.data} cannot be written ({exc.strerror}). "
                "Choose another with --data DIR or AMARRE_DATA."
            ) from exc

    def make_folders(self) -> None:
        """Create the folders that are missing.

        Raises:
            OSError: They cannot be created.
        """
        for folder in (self.data, self.logs, self.state, self.envoy, self.sockets):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def _make_secrets(self) -> None:
        for name, text in (
            ("redcap-token", secrets.token_hex(16).upper()),
            ("redcap-super-token", secrets.token_hex(32).upper()),
            ("console-token", secrets.token_urlsafe(32)),
            ("pseudonym-key", secrets.token_hex(32)),
        ):
            path = self.secret(name)
            if not path.exists() or not path.stat().st_size:
                files.write(path, text)

    def read_secret(self, name: str) -> str:
        """Return the text of a secret."""
        return self.secret(name).read_text().strip()
