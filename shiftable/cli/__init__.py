"""The command ``shiftable``: the only place that knows a terminal."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; exit codes are in ``shiftable --help``."""
    try:
        from shiftable.cli._main import cli
    except ModuleNotFoundError as exc:
        if exc.name not in ("click", "rich"):
            raise
        sys.stderr.write('the command line needs more packages; run: pip install "shiftable[cli]"\n')
        sys.exit(2)
    cli(prog_name="shiftable")
