"""Commands on machines, by the system's ssh: it knows the user's configuration, agents and jump hosts."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from datetime import timedelta

import attrs

from shiftable.errors import ConfigError, Timeout, Unavailable

__all__ = ["PORT", "Completed", "run"]

PORT = 22

_SSH_FAILED = 255  # ssh(1): its own errors; a command that exits with it looks the same


@attrs.frozen(kw_only=True)
class Completed:
    """A command that has come to its end on a machine."""

    exit_code: int
    stdout: bytes
    stderr: bytes


def run(
    host: str,
    user: str,
    command: str | Sequence[str],
    *,
    port: int = PORT,
    known_as: str,
    stdin: bytes,
    timeout: timedelta,
) -> Completed:
    """Run a command, and return what it said.

    The key of a host that was never seen is taken as it is; one that has changed is refused.

    Args:
        port: if it is not 22: one that leads to the machine today, and to another tomorrow.
        known_as: the name under which the machine's key is kept then.

    Raises:
        Unavailable: the machine cannot be reached, or lets nobody in.
        Timeout: it took longer.
        ConfigError: there is no ssh.
    """
    options: tuple[str, ...] = ("BatchMode=yes", "StrictHostKeyChecking=accept-new", "ConnectTimeout=15")
    if port != PORT:  # else the user's own configuration may know another
        options = (*options, f"Port={port}", f"HostKeyAlias={known_as}", "CheckHostIP=no")
    text = command if isinstance(command, str) else shlex.join(command)
    call = ["ssh", *(part for option in options for part in ("-o", option)), "-l", user, "--", host, text]
    try:
        done = subprocess.run(  # noqa: S603  the command is the caller's, on his own machine
            call, input=stdin, capture_output=True, timeout=timeout.total_seconds(), check=False
        )
    except FileNotFoundError:
        raise ConfigError("running commands on machines needs OpenSSH's ssh") from None
    except subprocess.TimeoutExpired:
        raise Timeout(f"waited {timeout} for the command on {host}; it may still run there") from None
    if done.returncode == _SSH_FAILED:
        raise Unavailable(f"ssh to {host} failed: {done.stderr.decode(errors='replace').strip()}")
    return Completed(exit_code=done.returncode, stdout=done.stdout, stderr=done.stderr)
