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


class UserError(click.ClickException):
    """An error the user can fix: one message on stderr, exit status 2."""

    exit_code = 2
