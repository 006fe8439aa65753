"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import random
import stat
from collections.abc import Iterable
from pathlib import Path

__all__ = ["check_replaceable", "is_stream", "save", "save_as"]


def save(
    stream: Iterable[bytes],
    path: str | Path,
    *,
    durable: bool = True,
    modified: float | None = None,
    mode: int = 0o666,
) -> None:
    """Write a stream to a file that appears whole or not at all.

    Args:
        durable: wait until the disk has it; else a power cut may leave an empty file.
        modified: when it is to say that it was changed, in seconds since 1970; now, if nothing is said.
        mode: who may do what with it, less the umask.

    Raises:
        OSError: it cannot be written; or what has its name is no file, see ``check_replaceable``.
    """
    check_replaceable(path)
    folder = os.path.dirname(path) or "."  # noqa: PTH120  paths cost as much as the file
    part = f"{folder}/.{random.getrandbits(64):016x}.part"
    try:
        # Python's files ask the system for more than they need, which shows where objects are small and many.
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except OSError as exc:
        exc.filename = str(path)
        raise
    try:
        try:
            for chunk in stream:
                _write(descriptor, chunk, path)
            if modified is not None:
                os.utime(descriptor, (modified, modified))
            if durable:
                _sync(descriptor, path)
        finally:
            os.close(descriptor)
        os.replace(part, path)  # noqa: PTH105
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    if durable:
        _sync_directory(folder)


def save_as(stream: Iterable[bytes], path: str | Path) -> None:
    """Write a stream to what somebody named: a file, also behind links, appears whole; a device or a pipe takes it."""
    if not is_stream(path):
        save(stream, os.path.realpath(path))
        return
    with Path(path).open("wb", buffering=0) as file:
        for chunk in stream:
            _write(file.fileno(), chunk, path)


def is_stream(path: str | Path) -> bool:
    """Tell whether it is there and takes bytes without keeping them as a file does: a device, a pipe, a socket."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116  of what it leads to, also if that has no name: /dev/fd/63
    except OSError:  # there is none; or writing says what is wrong
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def check_replaceable(path: str | Path) -> None:
    """Refuse a device, a pipe and a socket: a file in its place would take it from all who use it, ``/dev/null`` too.

    ``/dev/stdout`` is one whatever it leads to.

    Raises:
        FileExistsError: such a thing has this name.
    """
    if os.path.lexists(path) and (is_stream(path) or _leads_to_descriptor(path)):  # one look where there is nothing
        raise FileExistsError(errno.EEXIST, "is no file that could be replaced, name another one", str(path))


def _leads_to_descriptor(path: str | Path) -> bool:
    """Return whether it is a link like ``/dev/stdout``, which the system has for all processes."""
    return os.path.islink(path) and os.readlink(path).startswith("/proc/self/fd")  # noqa: PTH114, PTH115  as above


def _write(descriptor: int, chunk: bytes, path: str | Path) -> None:
    """Write all of it. The system does not say which file has no room; the error does."""
    try:
        written = os.write(descriptor, chunk)
        while written < len(chunk):
            written += os.write(descriptor, memoryview(chunk)[written:])
    except OSError as exc:
        exc.filename = str(path)
        raise


def _sync(descriptor: int, path: str | Path) -> None:
    """Wait until the disk has it, which may find no room only now."""
    try:
        os.fsync(descriptor)
    except OSError as exc:
        exc.filename = str(path)
        raise


def _sync_directory(path: str) -> None:
    """Make the rename last."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _sync(directory, path)
    finally:
        os.close(directory)
