"""What is done between two sides of a fleet before names lead to the new one: a command, or a copy of named paths."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from shiftable.compute import MachineInfo
from shiftable.compute._ssh import program
from shiftable.errors import ConfigError, MigrationError
from shiftable.migrate._compute_health import address_of

__all__ = ["Pair", "copy_path", "run_for_fleet", "run_for_machine"]

_PATH = re.compile(r"(/[^/\0\n]+)+")


@attrs.frozen
class Pair:
    """A new machine, and the old one in whose place it stands, if there is one.

    Args:
        providers: of the old one and of the new one, as hosts are known to ssh.
    """

    new: MachineInfo
    old: MachineInfo | None
    providers: tuple[str, str]

    @property
    def name(self) -> str:
        """Of both."""
        return self.new.name


def run_for_fleet(command: str, fleet: str, pairs: Sequence[Pair]) -> None:
    """Run a command once, with the names and addresses of all machines in its environment, separated by spaces."""
    _run(
        command,
        {
            "SHIFTABLE_FLEET": fleet,
            "SHIFTABLE_MACHINES": " ".join(pair.name for pair in pairs),
            "SHIFTABLE_NEW_ADDRESSES": " ".join(address_of(pair.new) or "" for pair in pairs),
            "SHIFTABLE_OLD_ADDRESSES": " ".join((pair.old and address_of(pair.old)) or "-" for pair in pairs),
        },
    )


def run_for_machine(command: str, fleet: str, pair: Pair) -> None:
    """Run a command for one machine, with its name and addresses in its environment."""
    _run(
        command,
        {
            "SHIFTABLE_FLEET": fleet,
            "SHIFTABLE_MACHINE": pair.name,
            "SHIFTABLE_USER": pair.new.user,
            "SHIFTABLE_NEW_ADDRESS": address_of(pair.new) or "",
            "SHIFTABLE_OLD_ADDRESS": (pair.old and address_of(pair.old)) or "",
        },
    )


def _run(command: str, told: Mapping[str, str]) -> None:
    """Run it without a shell.

    Raises:
        ConfigError: there is no such program.
        MigrationError: it failed.
    """
    call = shlex.split(command)
    try:
        done = subprocess.run(  # noqa: S603  the command is the caller's
            call, env={**os.environ, **told}, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, IndexError) as exc:
        raise ConfigError(f"{command!r} cannot be run: {getattr(exc, 'strerror', None) or 'it is empty'}") from exc
    if done.returncode:
        whom = f" for {told['SHIFTABLE_MACHINE']}" if "SHIFTABLE_MACHINE" in told else ""
        raise MigrationError(f"{call[0]}{whom} ended with {done.returncode}; correct that and run this again")


def copy_path(path: str, pair: Pair, stage: Path) -> None:
    """Bring a path from the old machine to the new one, by the system's rsync over ssh, as the machines' users.

    It goes through a folder here, as neither machine is let into the other; what lies there already is not sent again.

    Raises:
        ConfigError: there is no rsync; it is no path.
        MigrationError: it failed.
    """
    if not _PATH.fullmatch(path) or ".." in path.split("/"):
        raise ConfigError(f"{path!r} is no absolute path; write it as /srv/data")
    if pair.old is None:
        return
    if shutil.which("rsync") is None:
        raise ConfigError("copying paths needs rsync, here and on the machines; install it, or use a command of yours")
    stage.mkdir(parents=True, exist_ok=True, mode=0o700)
    here, there = pair.providers
    _rsync(pair.old, here, f"{_where(pair.old)}:{path}", f"{stage}/", path)
    _rsync(pair.new, there, f"{stage}/.{path}", f"{_where(pair.new)}:/", path)


def _rsync(machine: MachineInfo, provider: str, source: str, target: str, path: str) -> None:
    ssh = shlex.join(program(machine, provider, options=("BatchMode=yes",)))  # rsync reads quotes, and calls no shell
    options = ["-a", "-s", "--relative", "--no-implied-dirs", "-e", ssh]
    done = subprocess.run(  # noqa: S603  no shell; addresses are the provider's, the path was looked at
        ["rsync", *options, "--", source, target],  # noqa: S607  the system's own
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise MigrationError(f"rsync of {path} with {machine.name} ended with {done.returncode}: {why}")


def _where(machine: MachineInfo) -> str:
    host = address_of(machine)
    if host is None:
        raise MigrationError(f"{machine.name} has no address (it is {machine.state}); start it first")
    return f"{machine.user}@{f'[{host}]' if ':' in host else host}"
