"""The command line as ``python -m shiftable``: that of this interpreter, whatever the PATH says."""

from __future__ import annotations

from shiftable.cli import main

if __name__ == "__main__":
    main()
