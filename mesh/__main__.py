"""The program ``amarre``: the commands, or what to install for them."""

import sys

_OURS = ("amarre", "mesh")
_INTERRUPTED = 130
"""Exit status of a program that SIGINT ended, as in shells."""


def main() -> None:
    """Run the command; without the extra ``local``, say how to install it."""
    try:
        from mesh import cli
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] in _OURS:
            raise
        sys.exit(f"Install amarre-mesh[local] to use this command: {missing.name} is missing.")
    cli.main()


if __name__ == "__main__":
    main()
