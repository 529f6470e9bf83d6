"""Command line of the sandbox."""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox.redcap.design.study_files import AMARRE


class ConfigError(Exception):
    """The configuration is invalid; the message says why and what to do."""


@dataclass(frozen=True)
class Config:
    """Listen address, database, tokens and study."""

    host: str
    port: int
    database: Path
    token: str
    super_token: str
    base_url: str
    study: Path


def read(arguments: Sequence[str], environment: Mapping[str, str]) -> Config:
    """Read the command line.

    Raises:
        ConfigError: The environment is production, an address is malformed, or a
            file cannot be read or has invalid content.
    """
    given = _parser().parse_args(arguments)
    if environment.get("AMARRE_ENV", "").lower() == "production":
        raise ConfigError(
            "The REDCap sandbox does not run in production: AMARRE_ENV is 'production'. "
            "Point the survey service at a real REDCap instead."
        )
    host, port = _address(given.listen)
    shown = f"[{host}]" if ":" in host else host
    return Config(
        host=host,
        port=port,
        database=given.database,
        token=_secret(given.token_file, 32),
        super_token=_secret(given.super_token_file, 64),
        base_url=(given.base_url or f"http://{shown}:{port}").rstrip("/"),
        study=given.study,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.redcap",
        description="A REDCap-compatible server for development and tests.",
    )
    parser.add_argument("--listen", default="127.0.0.1:3010", metavar="HOST:PORT")
    parser.add_argument("--database", required=True, type=Path, metavar="FILE")
    parser.add_argument("--token-file", required=True, type=Path, metavar="FILE")
    parser.add_argument("--super-token-file", required=True, type=Path, metavar="FILE")
    parser.add_argument(
        "--base-url", default="", metavar="URL", help="URL under which browsers reach the server"
    )
    parser.add_argument(
        "--study",
        default=AMARRE,
        type=Path,
        metavar="CSV",
        help="data dictionary (CSV) for a new database",
    )
    return parser


def _address(text: str) -> tuple[str, int]:
    match = re.fullmatch(
        r"(?:\[(?P<six>[0-9a-fA-F:]+)\]|(?P<host>[^:\[\]]+)):(?P<port>\d{1,5})", text
    )
    if match is None or not 0 < int(match["port"]) < 65536:
        raise ConfigError(
            f"--listen is '{text}'; it must be HOST:PORT, for example 127.0.0.1:3010."
        )
    return match["six"] or match["host"], int(match["port"])


def _secret(path: Path, length: int) -> str:
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not a text file"
        raise ConfigError(f"The token file {path} cannot be read: {reason}.") from exc
    if not re.fullmatch(rf"[0-9A-Fa-f]{{{length}}}", text):
        raise ConfigError(f"The token file {path} must contain {length} hexadecimal digits.")
    return text.upper()
