"""``compute ssh``, ``run`` and ``console``: what goes on inside machines."""

from __future__ import annotations

import os
import sys
from datetime import timedelta

import click

from shiftable.cli._compute_target import Target, machine_, target_
from shiftable.cli._context import Context, json_line, json_option, pass_context, shown
from shiftable.cli._units import read_duration
from shiftable.compute import Completed, Machine
from shiftable.errors import ConfigError, ShiftableError
from shiftable.parallel import Done, parallel

__all__ = ["console", "run", "ssh"]

_AT_ONCE = 16


@click.command()
@machine_
@click.option("-o", "options", multiple=True, metavar="NAME=VALUE", help="An option of ssh_config. Repeatable.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
@pass_context
def ssh(context: Context, place: Target, options: tuple[str, ...], command: tuple[str, ...]) -> None:
    """Open a session on a machine by the system's ssh, or run COMMAND there.

    The words of COMMAND arrive as they are, without a shell's rules; for those say: sh -c '…'. The exit code is ssh's.
    """
    arguments = place.find(context).machine.ssh_command(command, options=options)
    sys.stdout.flush()
    try:
        os.execvp(arguments[0], arguments)  # noqa: S606  there is no shell: the terminal is ssh's from here on
    except FileNotFoundError:
        raise ConfigError("it needs OpenSSH's ssh, which is not installed here") from None


@click.command()
@target_
@click.option("--stdin", "with_input", is_flag=True, help="Hand what is on standard input to each.")
@click.option(
    "--timeout", default="5m", show_default=True, metavar="TIME", callback=read_duration, help="How long to wait."
)
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON, one object a machine.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
@pass_context
def run(
    context: Context, place: Target, *, with_input: bool, timeout: timedelta, as_json: bool, command: tuple[str, ...]
) -> None:
    """Run COMMAND on all machines of a fleet at once, or on one.

    Its words arrive as they are, without a shell's rules; for those say: sh -c '…'. Of a fleet each line begins with
    the machine's name. The exit code is that of the command on one machine; of several 0 if all of them ended with it.
    """
    given = sys.stdin.buffer.read() if with_input else b""
    found = place.find(context)
    machines = sorted(found.machines, key=lambda machine: (len(machine.name), machine.name))
    done = parallel(lambda machine: machine.run(command, stdin=given, timeout=timeout), machines, workers=_AT_ONCE)
    codes = [_told(machine, ended, alone=found.fleet is None, as_json=as_json) for machine, ended in done]
    sys.exit(codes[0] if found.fleet is None else int(any(codes)))


def _told(machine: Machine, ended: Done[Completed], *, alone: bool, as_json: bool) -> int:
    """Say what a command said on one machine, and return its exit code."""
    failed = ended.exception()
    if isinstance(failed, ShiftableError):
        if as_json:
            json_line({"machine": machine.name, "error": str(failed)})
        else:
            click.echo(shown(f"error: {failed}"), err=True)
        return 1
    done = ended.result()
    if as_json:
        texts = {"stdout": _text(done.stdout), "stderr": _text(done.stderr)}
        json_line({"machine": machine.name, "exit_code": done.exit_code, **texts})
    elif alone:
        _write(done.stdout, done.stderr)
    else:
        for said, to_stderr in ((done.stdout, False), (done.stderr, True)):
            for line in _text(said).splitlines():
                _echo(f"{machine.name}: {line}", to_stderr=to_stderr)
        if done.exit_code:
            click.echo(f"{machine.name}: ended with {done.exit_code}", err=True)
    return done.exit_code


def _write(stdout: bytes, stderr: bytes) -> None:
    """Write what one machine said: as it came, but to a terminal as that can show it."""
    for said, stream, to_stderr in ((stdout, sys.stdout, False), (stderr, sys.stderr, True)):
        if stream.isatty():
            for line in _text(said).splitlines():
                _echo(line, to_stderr=to_stderr)
        else:
            click.echo(said, nl=False, err=to_stderr)


def _echo(line: str, *, to_stderr: bool) -> None:
    terminal = (sys.stderr if to_stderr else sys.stdout).isatty()
    click.echo(shown(line) if terminal else line, err=to_stderr, color=True)  # else click drops what looks like one


def _text(said: bytes) -> str:
    return said.decode(errors="replace")


@click.command()
@machine_
@json_option
@pass_context
def console(context: Context, place: Target, as_json: bool) -> None:
    """Print what a machine wrote to its console, the last of it.

    On a terminal, what would move its cursor is shown as text; elsewhere the bytes are as they came.
    """
    machine = place.find(context).machine
    said = machine.console()
    if as_json:
        context.json({"machine": machine.name, "console": _text(said)})
    elif sys.stdout.isatty():
        for line in _text(said).replace("\r\n", "\n").removesuffix("\n").split("\n"):
            click.echo(shown(line))
    else:
        click.echo(said, nl=False)
