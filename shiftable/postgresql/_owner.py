"""Whose a private server is: root's cannot be, PostgreSQL refuses to run as root."""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
from pathlib import Path

import attrs

__all__ = ["Owner", "environment"]

_NOBODY = 65534


@attrs.frozen
class Owner:
    """The user a server runs as: this process's own, or, for root, another that exists already.

    Args:
        uid: ``None``: this process's own.
        gid: the same.
    """

    uid: int | None = None
    gid: int | None = None

    @classmethod
    def choose(cls, data: Path) -> Owner:
        """Return who runs a server on that data: for root its owner, else ``postgres``, else nobody."""
        if os.geteuid() != 0:
            return cls()
        with contextlib.suppress(FileNotFoundError):
            found = data.stat()
            if found.st_uid != 0:
                return cls(found.st_uid, found.st_gid)
        try:
            known = pwd.getpwnam("postgres")
        except KeyError:
            return cls(_NOBODY, _NOBODY)
        return cls(known.pw_uid, known.pw_gid)

    def take(self, path: Path) -> None:
        """Make a file or folder this user's."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def run(self, program: Path, *arguments: str, data: Path) -> subprocess.CompletedProcess[str]:
        """Run a program as this user on a data directory, which stands for ``{data}`` in its arguments.

        Another user may not be let into the folders above it, so he gets it as an open descriptor.
        """
        descriptor = os.open(data, os.O_RDONLY | os.O_DIRECTORY)
        try:
            where = f"/proc/self/fd/{descriptor}" if self.uid is not None else str(data)
            return subprocess.run(  # noqa: S603  a program of PostgreSQL's
                [str(program), *(argument.replace("{data}", where) for argument in arguments)],
                capture_output=True,
                text=True,
                check=False,
                cwd="/",
                env=environment(),
                pass_fds=(descriptor,),
                user=self.uid,
                group=self.gid,
                extra_groups=None if self.uid is None else (),
            )
        finally:
            os.close(descriptor)


def environment() -> dict[str, str]:
    """Return the environment of PostgreSQL's programs: nothing of the caller's settings, messages in English."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TZDIR") if name in os.environ}
    return {**kept, "LC_ALL": "C"}
