"""What the commands of the runner and of the console share."""

from pathlib import Path

import click

DATA = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="AMARRE_DATA",
    default=Path(".amarre"),
    show_default=True,
    help="Folder of the running mesh (or AMARRE_DATA).",
)


class Refused(click.ClickException):
    """What a person can mend: one message on stderr, exit status 2."""

    exit_code = 2
