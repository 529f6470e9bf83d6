"""Shared parts of the commands of the runner and of the console."""

from pathlib import Path

import click

DATA_OPTION = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="AMARRE_DATA",
    default=Path(".amarre"),
    show_default=True,
    help="Data folder of the mesh (or AMARRE_DATA).",
)


def counted(number: int, noun: str) -> str:
    """Return *number* and *noun* in its singular or plural: ``1 call``, ``2 calls``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


class UserError(click.ClickException):
    """An error the user can fix: one message on stderr, exit status 2."""

    exit_code = 2
