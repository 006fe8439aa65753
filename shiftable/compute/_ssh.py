"""Commands on machines, by the system's ssh: it knows the user's configuration, agents and jump hosts."""

from __future__ import annotations

import hashlib
import re
import shlex
import subprocess
from collections.abc import Sequence
from datetime import timedelta

import attrs

from shiftable.compute.driver import MachineInfo
from shiftable.errors import ConfigError, Timeout, Unavailable

__all__ = ["MISSING", "PORT", "Completed", "command_line", "destination", "program", "run"]

PORT = 22
_SSH_FAILED = 255  # ssh(1): its own errors; a command that exits with it looks the same
_HOST = re.compile(r"[A-Za-z0-9_.:][A-Za-z0-9_.:%-]*")

MISSING = "working on machines needs OpenSSH's ssh, which is not installed here"


@attrs.frozen(kw_only=True)
class Completed:
    """A command that has come to its end on a machine."""

    exit_code: int
    stdout: bytes
    stderr: bytes


def destination(info: MachineInfo) -> str | None:
    """Return the address at which a machine is reached; ``None`` without any."""
    host = next(iter((*info.public_addresses, *info.addresses)), None)
    return host if host is not None and _HOST.fullmatch(host) else None


def command_line(
    info: MachineInfo, provider: str, command: str | Sequence[str] = (), *, options: Sequence[str] = ()
) -> list[str]:
    """Return the arguments with which ssh reaches a machine. Nothing in them is for a shell here.

    The key of a machine that was never seen is taken as it is; one that has changed is refused. It is kept under a name
    of the machine's own, since addresses, ports and names go from one machine to the next.

    Args:
        command: for the user's shell there; a sequence is quoted for it; none: the shell itself.
        options: of ssh_config(5), ``Name=value``; the first one that names something counts.
    """
    text = command if isinstance(command, str) else shlex.join(command)
    return [
        *program(info, provider, options=options),
        "-l",
        info.user,
        "--",
        destination(info) or "",
        *([text] if text else []),
    ]


def program(info: MachineInfo, provider: str = "", *, options: Sequence[str] = ()) -> list[str]:
    """Return ssh with its options alone, for programs that call it themselves, as rsync does."""
    own = [
        "StrictHostKeyChecking=accept-new",
        "ConnectTimeout=15",
        f"HostKeyAlias={_key_name(info, provider)}",
        "CheckHostIP=no",
    ]
    port = info.ports.get(PORT, PORT)
    if port != PORT:  # else the user's own configuration may know another
        own.append(f"Port={port}")
    return ["ssh", *(part for option in (*options, *own) for part in ("-o", option))]


def _key_name(info: MachineInfo, provider: str) -> str:
    """Return a name that no other machine has, not even a later one of the same id."""
    created = info.created.isoformat() if info.created else ""
    return f"shiftable-{hashlib.sha256(f'{provider} {info.id} {created}'.encode()).hexdigest()[:24]}"


def run(
    info: MachineInfo, provider: str, command: str | Sequence[str], *, stdin: bytes, timeout: timedelta
) -> Completed:
    """Run a command, and return what it said.

    Raises:
        Unavailable: the machine cannot be reached, or lets nobody in.
        Timeout: it took longer.
        ConfigError: there is no ssh.
    """
    call = command_line(info, provider, command, options=("BatchMode=yes",))
    host = destination(info)
    try:
        done = subprocess.run(  # noqa: S603  the command is the caller's, on his own machine
            call, input=stdin, capture_output=True, timeout=timeout.total_seconds(), check=False
        )
    except FileNotFoundError:
        raise ConfigError(MISSING) from None
    except subprocess.TimeoutExpired:
        raise Timeout(f"waited {timeout} for the command on {host}; it may still run there") from None
    if done.returncode == _SSH_FAILED:
        said = "; ".join(done.stderr.decode(errors="replace").split("\n")).replace("\r", "").strip("; ")
        raise Unavailable(f"ssh to {host} failed: {said}")
    return Completed(exit_code=done.returncode, stdout=done.stdout, stderr=done.stderr)
