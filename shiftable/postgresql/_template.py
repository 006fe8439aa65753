"""New data directories: copies of one that ``initdb`` made once, each with an identity of its own."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import tempfile
import time
from pathlib import Path

from shiftable.errors import ShiftableError
from shiftable.postgresql._binaries import Binaries
from shiftable.postgresql._owner import Owner

__all__ = ["PORTABLE", "ClusterError", "copy_data", "give_identity", "make_data"]

PORTABLE = "C.UTF-8"  # sorts by code point everywhere; where the system has none, C does the same
_CASTAGNOLI = 0x82F63B78
_MARKS = {"postmaster.pid", "postmaster.opts"}
_FORMAT = 1  # of the cached templates; raise it when their making changes


class ClusterError(ShiftableError):
    """A private PostgreSQL could not be made, started or stopped; the message ends with what its log says."""


def make_data(binaries: Binaries, locale: str, data: Path, owner: Owner, *, durable: bool) -> None:
    """Make a data directory at ``data``, which must not exist: all or nothing.

    Raises:
        ClusterError: initdb refused; the message holds its words.
    """
    template = _template(binaries, locale, owner)
    with tempfile.TemporaryDirectory(dir=data.parent, prefix="data-") as name:
        new = Path(name) / "data"
        if template is None:
            _initdb(binaries, locale, new, owner)
        else:
            copy_data(template, new, owner)
            give_identity(binaries, new, owner)
        if durable:
            os.sync()
        new.rename(data)


def _template(binaries: Binaries, locale: str, owner: Owner) -> Path | None:
    """Return the cached data directory of that version and locale, made now if need be; ``None`` without a cache."""
    stat = (binaries.folder / "initdb").stat()
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111  Path raises without a home
    mark = hashlib.sha256(f"{_FORMAT} {binaries.folder} {stat.st_size} {stat.st_mtime_ns} {locale}".encode())
    cache = Path(home, "shiftable", "postgresql")
    if not cache.is_absolute():
        return None
    template = cache / f"{binaries.version}-{mark.hexdigest()[:16]}"
    if template.is_dir():
        return template
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="new-") as name:
            new = Path(name) / "data"
            _initdb(binaries, locale, new, owner)
            try:
                new.rename(template)
            except OSError:
                if not template.is_dir():  # another process was faster
                    raise
    except OSError:
        return None
    return template


def _initdb(binaries: Binaries, locale: str, data: Path, owner: Owner) -> None:
    data.mkdir(mode=0o700)
    owner.take(data)
    plain = ("--username=postgres", "--encoding=UTF8", "--no-sync", "--auth=trust", "--data-checksums")
    for each in dict.fromkeys((locale, "C")):
        options = (*plain, f"--locale={each}", "--lc-messages=C")
        done = owner.run(binaries.program("initdb"), *options, "--pgdata={data}", data=data)
        if done.returncode == 0:
            return
        if "invalid locale" not in done.stderr or locale != PORTABLE:  # one that was asked for is not replaced
            break
    raise ClusterError(f"initdb of PostgreSQL {binaries.version} failed: {done.stderr.strip()}")


def copy_data(data: Path, new: Path, owner: Owner) -> None:
    """Copy the data directory of a server that does not run, without its marks and its replication slots."""
    new.mkdir(mode=0o700)
    owner.take(new)
    for entry in os.scandir(data):
        target = new / entry.name
        if entry.is_symlink():
            target.symlink_to(Path(entry.path).readlink())
            owner.take(target)
        elif entry.is_dir():
            copy_data(Path(entry.path), target, owner)
        elif entry.is_file() and entry.name not in _MARKS and data.parent.name != "pg_replslot":
            shutil.copyfile(entry.path, target, follow_symlinks=False)
            target.chmod(0o600)
            owner.take(target)


def give_identity(binaries: Binaries, data: Path, owner: Owner) -> None:
    """Give a copy a system identifier of its own, by which servers and tools tell clusters apart.

    It is the first number of the control file, which ends with its own CRC-32C; pg_resetwal then writes WAL that bears
    the same number. It refuses a control file whose sum is wrong, so a layout that is not as expected is no danger. The
    server must have been stopped in order.
    """
    path = data / "global" / "pg_control"
    content = bytearray(path.read_bytes())
    place = _place_of_sum(content)
    if place is None:
        raise ClusterError(f"the control file of PostgreSQL {binaries.version} is not understood: {path}")
    now = time.time_ns()
    identity = (now // 1_000_000_000 << 32 | now // 1000 % 1_000_000 << 12) ^ int.from_bytes(os.urandom(4), "big")
    content[:8] = struct.pack("=Q", identity)
    content[place : place + 4] = struct.pack("=I", _crc32c(bytes(content[:place])))
    path.write_bytes(content)
    done = owner.run(binaries.program("pg_resetwal"), "--pgdata={data}", data=data)
    if done.returncode:
        raise ClusterError(f"pg_resetwal of PostgreSQL {binaries.version} failed: {done.stderr.strip()}")


def _place_of_sum(content: bytearray) -> int | None:
    """Find where the control file's sum stands: after as many bytes as it is the sum of."""
    crc = 0xFFFFFFFF
    for place in range(min(len(content) - 4, 1024)):
        if place % 4 == 0 and struct.unpack_from("=I", content, place)[0] == crc ^ 0xFFFFFFFF and place >= 64:
            return place
        crc = _next(crc, content[place])
    return None


def _crc32c(content: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in content:
        crc = _next(crc, byte)
    return crc ^ 0xFFFFFFFF


def _next(crc: int, byte: int) -> int:
    crc ^= byte
    for _ in range(8):
        crc = crc >> 1 ^ (_CASTAGNOLI if crc & 1 else 0)
    return crc
