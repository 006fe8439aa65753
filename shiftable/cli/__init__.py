"""The command ``shiftable``: the only place that knows a terminal."""

from __future__ import annotations

import gc
import io
import os
import sys
from pathlib import Path

__all__ = ["main"]


def main() -> None:
    """Run the command line; exit codes are in ``shiftable --help``."""
    # Many small objects that live for long: to look for dead circles among them as often as usual costs a fifth.
    gc.set_threshold(50_000, 20, 50)
    _open_streams()
    try:
        from shiftable.cli._main import cli
    except ModuleNotFoundError as exc:
        if exc.name not in ("click", "rich"):
            raise
        sys.stderr.write('the command line needs more packages; run: pip install "shiftable[cli]"\n')
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    cli(prog_name="shiftable")


def _open_streams() -> None:
    """Let a stream that the shell has closed be empty, and write names as they are, in every locale."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  as long as the process
    if isinstance(sys.stdout, io.TextIOWrapper):
        if sys.stdout.isatty():
            sys.stdout.reconfigure(errors="backslashreplace")
        else:
            sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
