"""The way to a database server on another machine: a socket here that the system's ssh carries there.

ssh's own master process holds it: it serves every process of this user, and ends ten minutes after its last connection.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from shiftable.errors import ConfigError, Unauthenticated, Unavailable

__all__ = ["Tunnel"]

_OPTIONS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=accept-new",
    "ConnectTimeout=15",
    "ServerAliveInterval=15",
    "ExitOnForwardFailure=yes",
    "StreamLocalBindUnlink=yes",
    "ControlMaster=yes",
    "ControlPersist=600",
)
_FOR_GOOD = ("Permission denied", "Host key verification failed", "Too many authentication failures")
"""What OpenSSH says where trying again does not help."""
_TIMEOUT = 60  # seconds for ssh to come up


@attrs.frozen
class Tunnel:
    """A socket on this machine that leads to a server's.

    Args:
        machine: as ssh knows it: a host, ``user@host``, or a name of the user's configuration.
        target: as that machine sees it: the path of a socket, or ``host:port``.
        socket: name of the socket here, as clients look for it.
        is_folder: clients are told the folder of the socket, not its path.
    """

    machine: str
    target: str
    socket: str
    is_folder: bool

    @property
    def host(self) -> str:
        """What clients of this machine take as the server's host."""
        return str(self._folder if self.is_folder else self._folder / self.socket)

    def open(self) -> None:
        """Have ssh carry the socket, unless it does.

        Raises:
            Unauthenticated: the machine lets nobody in with this key, or is not the one that ssh knows.
            Unavailable: the machine cannot be reached.
            ConfigError: there is no ssh.
        """
        self._own_folder()
        if self._is_open():
            return
        with self._exclusively():
            if self._is_open():
                return
            forward = ("-L", f"{self._folder / self.socket}:{self.target}")
            done = self._ssh("-f", "-N", *(f"-o{each}" for each in _OPTIONS), *forward)
            if done.returncode:
                said = _plain(done.stderr)
                error = Unauthenticated if any(words in said for words in _FOR_GOOD) else Unavailable
                raise error(f"ssh to {self.machine} failed: {said}")

    def close(self) -> None:
        """End it for everybody."""
        if self._folder.is_dir():
            self._ssh("-O", "exit")

    @property
    def _folder(self) -> Path:
        """A folder of this user alone, with a short path, the same for all processes."""
        mark = hashlib.sha256(f"{self.machine}\0{self.target}".encode()).hexdigest()[:12]
        runtime = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
        above = Path(runtime if len(runtime) < 40 else "/tmp")  # noqa: S108  0700 below
        return above / f"shiftable-ssh-{os.geteuid()}-{mark}"

    def _is_open(self) -> bool:
        return (self._folder / self.socket).exists() and self._ssh("-O", "check").returncode == 0

    def _ssh(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        call = ("ssh", "-S", str(self._folder / "master"), *arguments, "--", self.machine)
        try:  # not a pipe: ssh's master would keep it open
            with tempfile.TemporaryFile() as said:
                done = subprocess.run(  # noqa: S603  the user's own ssh
                    call, stdin=subprocess.DEVNULL, stdout=said, stderr=said, timeout=_TIMEOUT, check=False
                )
                said.seek(0)
                return subprocess.CompletedProcess(call, done.returncode, b"", said.read())
        except FileNotFoundError:
            raise ConfigError("a database server on another machine is reached by OpenSSH's ssh: install it") from None
        except subprocess.TimeoutExpired:
            raise Unavailable(f"ssh to {self.machine} does not come up in {_TIMEOUT} s") from None

    def _own_folder(self) -> None:
        """Make the folder, and see that nobody else could have put a socket there."""
        folder = self._folder
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise ConfigError(f"{folder} is not this user's alone: remove it")

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        """Let one process at a time start it."""
        with (self._folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _plain(said: bytes) -> str:
    """Return what ssh says on one line; without the frame around its warnings."""
    lines = (line.strip("@ \t") for line in said.decode(errors="replace").splitlines())
    return " ".join(filter(None, lines))
