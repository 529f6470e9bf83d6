"""Reading secrets from files, which must be present, private and long enough.

Every secret that a process reads from a file goes through here, before the process listens::

    key = secret_files.read("AMARRE_PSEUDONYM_KEY_FILE", path, least=16)
    token = secret_files.read_text("AMARRE_SURVEY_REDCAP_TOKEN_FILE", path)
"""

import os
import stat
from pathlib import Path

OTHERS = stat.S_IRWXO
RANDOM = "openssl rand -hex 32"


class SecretFileError(Exception):
    """A secret is unusable; the message names the setting and says what to do."""


def read(setting: str, path: Path, *, least: int = 1, make: str = RANDOM) -> bytes:
    """Return the content of *path* without surrounding white space.

    Args:
        setting: The variable that names the file, for the message.
        path: The file.
        least: The minimum size in bytes.
        make: A command that prints a new secret, for the message.

    Raises:
        SecretFileError: The file is missing, unreadable, too short, or accessible to other users
            of this machine.
    """
    check_private(setting, path)
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise _unreadable(setting, path, error) from error
    if len(secret) < least:
        raise SecretFileError(
            f"{setting}: {path} holds {len(secret)} bytes, but at least {least} are needed."
            f" Create a new secret, for example: {make} > {path}"
        )
    return secret


def read_text(setting: str, path: Path, *, least: int = 1) -> str:
    """Return the content of *path* as `read` does, as text.

    Raises:
        SecretFileError: As for `read`, or the content is not UTF-8.
    """
    try:
        return read(setting, path, least=least).decode()
    except UnicodeDecodeError as error:
        raise SecretFileError(f"{setting}: {path} does not contain UTF-8 text.") from error


def check_private(setting: str, path: Path) -> None:
    """Reject a file that another user owns or can access.

    Raises:
        SecretFileError: The file is missing, not ours or root's, or accessible to others.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(setting, path, error) from error
    if not stat.S_ISREG(found.st_mode):
        raise SecretFileError(f"{setting}: {path} is not a file.")
    check_owner(setting, path, found.st_uid)
    if found.st_mode & OTHERS:
        raise SecretFileError(
            f"{setting}: every user of this machine has access to {path}"
            f" (mode {stat.S_IMODE(found.st_mode):04o}). Run: chmod o-rwx {path}"
        )


def check_owner(setting: str, path: Path, owner: int) -> None:
    """Reject a file owned by a user other than ours or root, who could replace the secret.

    Raises:
        SecretFileError: *owner* is another user.
    """
    if owner not in (0, os.geteuid()):
        raise SecretFileError(
            f"{setting}: {path} belongs to user {owner}, who can replace it; this process"
            f" runs as user {os.geteuid()}. Run: chown {os.geteuid()} {path}"
        )


def _unreadable(setting: str, path: Path, error: OSError) -> SecretFileError:
    return SecretFileError(
        f"{setting}: cannot read {path}: {error.strerror}. Create the file or name another one."
    )
