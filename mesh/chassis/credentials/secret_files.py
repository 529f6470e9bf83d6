"""Reading secrets from files: refused by name unless private, present and long enough.

Every secret that a process reads from a file goes through here, before the process listens::

    key = secret_files.read("AMARRE_PSEUDONYM_KEY_FILE", path, least=16)
"""

import stat
from pathlib import Path

OTHERS = stat.S_IRWXO


class SecretFileError(Exception):
    """A secret cannot be used; the message names the setting and says what to do."""


def read(setting: str, path: Path, *, least: int = 1) -> bytes:
    """Return the content of *path* without surrounding white space.

    Args:
        setting: The variable that names the file, for the message.
        path: The file.
        least: How many bytes it must hold.

    Raises:
        SecretFileError: The file is missing, unreadable, too short, or accessible to everybody on
            this machine.
    """
    check_private(setting, path)
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise _unreadable(setting, path, error) from error
    if len(secret) < least:
        raise SecretFileError(
            f"{setting}: {path} holds {len(secret)} bytes, but at least {least} are needed."
            f" Create a new secret, for example: openssl rand -hex 32 > {path}"
        )
    return secret


def check_private(setting: str, path: Path) -> None:
    """Refuse a file that everybody on this machine may read, write or run.

    Raises:
        SecretFileError: The file is missing or accessible to others.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(setting, path, error) from error
    if not stat.S_ISREG(found.st_mode):
        raise SecretFileError(f"{setting}: {path} is not a file.")
    if found.st_mode & OTHERS:
        raise SecretFileError(
            f"{setting}: everybody on this machine has access to {path}"
            f" (mode {stat.S_IMODE(found.st_mode):04o}). Run: chmod o-rwx {path}"
        )


def _unreadable(setting: str, path: Path, error: OSError) -> SecretFileError:
    return SecretFileError(
        f"{setting}: cannot read {path}: {error.strerror}. Create the file or name another one."
    )
