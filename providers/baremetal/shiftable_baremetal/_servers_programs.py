"""The stock programs that write and read the content of a database: streams, with passwords in no argument or file."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, cast

import attrs

from shiftable.errors import ConfigError
from shiftable.masking import Masked
from shiftable_baremetal import _leash
from shiftable_baremetal._faults import FilesError
from shiftable_baremetal._servers_errors import program_fault

__all__ = ["Command", "dumped", "found_program", "leashed", "loaded"]

_CHUNK = 1024 * 1024
_PATIENCE = 20  # seconds for a program to end that is told to
_LEASHED = 10  # more, in which what runs it ends too
_LEASH = (sys.executable, "-I", "-S", _leash.__file__)
_NOT_OURS = ("PG", "MYSQL", "MARIADB")


@attrs.frozen(kw_only=True)
class Command:
    """A program to run.

    Args:
        secret: a file that only the program has open.
        secret_variable: says where that file is; or
        secret_option: the first argument, ``--defaults-file``, does.
    """

    program: Path
    arguments: Sequence[str]
    secret: Masked = attrs.field(repr=False)
    variables: Mapping[str, str] = attrs.Factory(dict)
    secret_variable: str | None = None
    secret_option: str | None = None


def found_program(folder: Path | None, *names: str) -> Path:
    """Return the first of the programs that is there, in a folder or on the ``PATH``.

    Raises:
        ConfigError: there is none.
    """
    path = None if folder is None else f"{folder}:{folder / 'bin'}"
    for name in names:
        if (found := shutil.which(name, path=path)) is not None:
            return Path(found)
    where = folder or "the PATH"
    raise ConfigError(f"{where} has no {names[0]}: install the server's client programs, or name them in `programs`")


def dumped(command: Command) -> Iterator[bytes]:
    """Run a program and yield what it writes.

    Raises:
        FilesError: it failed, which may be told after the last piece.
    """
    with _running(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        source = cast("IO[bytes]", process.stdout)
        while piece := source.read(_CHUNK):
            yield piece


def loaded(command: Command, pieces: Iterable[bytes]) -> None:
    """Run a program that reads the pieces.

    Raises:
        FilesError: it failed.
    """
    with _running(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        sink = cast("IO[bytes]", process.stdin)
        with contextlib.suppress(BrokenPipeError):  # it has ended, and says why
            for piece in pieces:
                sink.write(piece)
            sink.close()


@contextlib.contextmanager
def leashed(command: Command, *descriptors: int, patience: float = _PATIENCE) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program that does not end by itself, until the end of the block or of this process, however it ends.

    Args:
        descriptors: that the program has open too.
        patience: seconds in which it ends by itself when it is told to; then it is killed.

    Raises:
        FilesError: it ended by itself, or failed.
    """
    nothing = subprocess.DEVNULL
    with _running(command, stdin=subprocess.PIPE, stdout=nothing, leash=patience, descriptors=descriptors) as process:
        try:
            yield process
        finally:
            cast("IO[bytes]", process.stdin).close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience + _LEASHED)


@contextlib.contextmanager
def _running(
    command: Command, *, stdin: int, stdout: int, leash: float | None = None, descriptors: Sequence[int] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program for the time of the block, and see that it ends well; if the block fails, end it."""
    with _unnamed(command.secret) as number, tempfile.TemporaryFile() as said:
        path = f"/dev/fd/{number}"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_OURS)}
        variable = {command.secret_variable: path} if command.secret_variable else {}
        option = (f"{command.secret_option}={path}",) if command.secret_option else ()
        process = subprocess.Popen(  # noqa: S603  a program of the server's own
            [*(() if leash is None else (*_LEASH, str(leash))), str(command.program), *option, *command.arguments],
            env={**inherited, **command.variables, **variable, "LC_ALL": "C"},
            pass_fds=(number, *descriptors),
            stdin=stdin,
            stdout=stdout,
            stderr=said,
        )
        try:
            yield process
            code = process.wait()
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        if code:
            said.seek(0)
            raise FilesError(program_fault(command.program.name, said.read().decode(errors="replace")))


@contextlib.contextmanager
def _unnamed(secret: Masked) -> Iterator[int]:
    """Keep a secret in a file in memory that has no name, which only its owner reads."""
    if not hasattr(os, "memfd_create"):
        raise ConfigError("the programs get the password in a file without a name, which needs Linux")
    number = os.memfd_create("shiftable")
    try:
        os.fchmod(number, 0o600)
        os.write(number, secret.reveal_bytes())
        os.lseek(number, 0, os.SEEK_SET)
        yield number
    finally:
        os.close(number)
