"""Zone files in a folder: one for each zone, written as a whole, read once for as long as they stay as they are."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import stat
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import islice, takewhile
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote, unquote

import attrs

from shiftable.dns._text import file_text, read_zone
from shiftable.dns.driver import RecordKey, RecordSet, labels
from shiftable.errors import Conflict, Fault, IntegrityError, NotFound, OperationError
from shiftable_baremetal._durable import for_writing, make_folder, sync

__all__ = ["Refusal", "ZoneContent", "ZoneFolder", "file_name", "zone_of"]

_SUFFIX = ".zone"
_SETTLED = 50_000_000
"""Nanoseconds after which a file's time tells one state from the next: a clock tick of Linux is at most 10 ms."""

_FEW = 200

_HEAD = re.compile(r"(?:[ \t]*(?:;[^\n]*)?\n)*")

Mark = tuple[tuple[bytes, ...], str, str]


class Refusal(Exception):
    """What zone files answer in place of an SDK's error; ``fault`` says what it means."""

    def __init__(self, error: type[OperationError], message: str, *, missing: str | None = None) -> None:
        super().__init__(message)
        self.fault = Fault(error, message, missing=missing)


def refuse(error: type[OperationError], message: str) -> NoReturn:
    """Raise a refusal."""
    raise Refusal(error, message)


def file_name(zone: str) -> str:
    """Return the name of a zone's file: ``shop.example.zone``. What a file name cannot hold is ``%XX``, as in URLs."""
    return quote(zone, safe="") + _SUFFIX


def zone_of(file: str) -> str | None:
    """Return the zone whose file has that name; ``None`` if none has."""
    zone = unquote(file.removesuffix(_SUFFIX))
    return zone if zone and not file.startswith(".") and file_name(zone) == file else None


def mark_of(key: RecordKey) -> Mark:
    """Order as DNS does, by labels from the right (RFC 4034, 6.1), then by type."""
    return labels(key.name)[::-1], key.type, key.set_id


@attrs.frozen(slots=False, eq=False)
class ZoneContent:
    """What a zone file holds. Two are the same state of the file only if they are the same object.

    Args:
        origin: of the zone, with a dot at the end.
        records: all record sets; one of them is the SOA.
        head: the comment that the file begins with.
    """

    origin: str
    records: Mapping[RecordKey, RecordSet] = attrs.field(repr=False)
    head: str = attrs.field(default="", repr=False)
    _lines: dict[RecordKey, str] = attrs.field(factory=dict, repr=False)

    @classmethod
    def parse(cls, text: str, origin: str) -> ZoneContent:
        """Read a zone file.

        Raises:
            ValueError: it is none, or has not exactly one SOA, at the top of the zone.
        """
        match = _HEAD.match(text)
        head = text[: match.end()] if match else ""
        found = read_zone("\n" * head.count("\n") + text[len(head) :], origin)
        records = dict[RecordKey, RecordSet]()
        for name, kind, ttl, rdatas in found:
            record = RecordSet(name=name, type=kind, ttl=ttl, rdatas=rdatas)
            if kind == "SOA" and (name != origin or len(rdatas) > 1):
                raise ValueError("a zone has one SOA, at its top")
            records[record.key] = record
        if RecordKey(origin, "SOA") not in records:
            raise ValueError("it has no SOA record")
        return cls(origin, records, head)

    def changed(self, changes: Mapping[RecordKey, RecordSet | None]) -> ZoneContent:
        """Return the zone with some record sets replaced or, where there is ``None``, removed."""
        records = dict(self.records)
        lines = dict(self._lines)
        for key, record in changes.items():
            lines.pop(key, None)
            if record is None:
                records.pop(key, None)
            else:
                records[key] = record
        after = ZoneContent(self.origin, records, self.head, lines)
        marked = self.__dict__.get("_marked")
        if marked is not None and len(changes) < _FEW:
            after.__dict__["_marked"] = _moved(marked, changes)  # in place of sorting all of them again
        return after

    @property
    def soa(self) -> RecordSet:
        """The SOA of the zone."""
        return self.records[RecordKey(self.origin, "SOA")]

    @cached_property
    def ordered(self) -> tuple[RecordSet, ...]:
        """The record sets as DNS orders names."""
        return tuple(self.records[key] for _, key in self._marked)

    def of_name(self, name: str) -> tuple[RecordSet, ...]:
        """Return the record sets of one name, by type."""
        mark = labels(name)[::-1]
        start = bisect_left(self._marked, mark, key=lambda entry: entry[0][0])
        keys = takewhile(lambda entry: entry[0][0] == mark, islice(self._marked, start, None))
        return tuple(self.records[key] for _, key in keys)

    @cached_property
    def _marked(self) -> list[tuple[Mark, RecordKey]]:
        return sorted((mark_of(key), key) for key in self.records)

    def after(self, key: RecordKey) -> int:
        """Return how many record sets stand up to and including that key, which may be gone."""
        return bisect_right(self._marked, (mark_of(key), key))

    def text(self) -> str:
        """Print the zone file: the SOA, then the other record sets in order, a record a line, names in full."""
        first = self.soa
        parts = [self.head, self._line(first)]
        parts += [self._line(record) for record in self.ordered if record is not first]
        return "".join(parts)

    def _line(self, record: RecordSet) -> str:
        known = self._lines.get(record.key)
        if known is None:
            shown = attrs.evolve(record, rdatas=sorted(record.rdatas)) if len(record.rdatas) > 1 else record
            known = self._lines[record.key] = f"{shown}\n"
        return known


def _moved(
    marked: list[tuple[Mark, RecordKey]], changes: Mapping[RecordKey, RecordSet | None]
) -> list[tuple[Mark, RecordKey]]:
    """Return sorted keys after some changes."""
    after = marked.copy()
    for key, record in changes.items():
        entry = (mark_of(key), key)
        at = bisect_left(after, entry)
        there = at < len(after) and after[at] == entry
        if record is None and there:
            del after[at]
        elif record is not None and not there:
            after.insert(at, entry)
    return after


@attrs.frozen
class _Kept:
    """A zone as it was read from a file.

    Args:
        settled: whether the stamp alone tells that the file is the same.
    """

    path: str
    stamp: tuple[int, int, int]
    digest: bytes
    settled: bool
    content: ZoneContent


@attrs.define
class ZoneFolder:
    """The zone files of one folder. May be used from many threads, and from many processes at once.

    Args:
        root: the folder; symbolic links in it are not followed.
        fsync: whether a write waits until the disk has it.
    """

    root: Path
    _fsync: bool = True
    _kept: dict[str, _Kept] = attrs.field(factory=dict, init=False, repr=False)
    _reading: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False, eq=False)

    def path(self, zone: str) -> Path:
        """Return where the file of a zone lies."""
        return self.root / file_name(zone)

    def zones(self) -> list[str]:
        """Return the zones that have a file, in order; a missing folder has none."""
        try:
            with os.scandir(self.root) as entries:
                files = [entry.name for entry in entries if entry.name.endswith(_SUFFIX) and _is_file(entry)]
        except FileNotFoundError:
            return []
        return sorted(zone for file in files if (zone := zone_of(file)) is not None)

    def has(self, zone: str) -> bool:
        """Tell whether a zone has a file, or something that stands in its place."""
        return os.path.lexists(self.path(zone))

    def load(self, zone: str) -> ZoneContent:
        """Return what a zone's file holds: the same object as long as the file is the same.

        Raises:
            Refusal: there is no such zone, it is a link, or the file is broken; the message names file and line.
        """
        kept = self._kept.get(zone)
        if kept is not None and kept.settled:
            try:
                status = os.lstat(kept.path)
            except OSError:
                pass  # reading it says what is wrong
            else:
                if kept.stamp == (status.st_mtime_ns, status.st_size, status.st_ino):
                    return kept.content
        with self._reading:
            return self._read(zone, self.path(zone))

    def _read(self, zone: str, path: Path) -> ZoneContent:
        try:
            raw, status = _content(path)
        except (FileNotFoundError, NotADirectoryError) as exc:
            self._kept.pop(zone, None)
            raise Refusal(
                NotFound, "there is no such zone; `shiftable apply` makes what is declared", missing="zone"
            ) from exc
        except OSError as exc:
            if exc.errno == errno.ELOOP:
                refuse(Conflict, f"{path} is a symbolic link; zone files are not read through links")
            raise
        return self._remember(zone, raw, status, None)

    def _remember(self, zone: str, raw: bytes, status: os.stat_result, content: ZoneContent | None) -> ZoneContent:
        """Keep the content of a file, or notice that it is what is kept."""
        kept, digest = self._kept.get(zone), hashlib.blake2b(raw, digest_size=16).digest()
        settled = time.time_ns() - status.st_mtime_ns > _SETTLED
        if content is None:
            same = kept is not None and kept.digest == digest
            content = kept.content if kept is not None and same else self._parsed(zone, raw)
        self._kept[zone] = _Kept(str(self.path(zone)), _stamp(status), digest, settled, content)
        return content

    def _parsed(self, zone: str, raw: bytes) -> ZoneContent:
        path = self.path(zone)
        try:
            return ZoneContent.parse(file_text(raw), f"{zone}.")
        except ValueError as exc:
            raise Refusal(IntegrityError, f"{path}: {exc}") from exc

    # writing: under the lock

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep out other writers, of this process and others, until the end of the block.

        Raises:
            FileNotFoundError: there is no such folder.
        """
        lock = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)  # which unlocks

    def make(self) -> None:
        """Make the folder, so that it survives a crash."""
        make_folder(self.root)

    def save(self, zone: str, content: ZoneContent) -> None:
        """Replace a zone's file as a whole; its permissions stay."""
        path, new = self.path(zone), self.root / ".new"
        raw = content.text().encode()
        try:
            with open(new, "wb", opener=for_writing) as stream:
                stream.write(raw)
                with contextlib.suppress(FileNotFoundError):
                    os.fchmod(stream.fileno(), stat.S_IMODE(os.lstat(path).st_mode))
                stream.flush()
                if self._fsync:
                    os.fsync(stream.fileno())
                status = os.fstat(stream.fileno())
            with self._reading:
                new.replace(path)
                self._remember(zone, raw, status, content)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        self._sync()

    def remove(self, zone: str) -> None:
        """Remove a zone's file."""
        self.path(zone).unlink()
        self._kept.pop(zone, None)
        self._sync()

    def _sync(self) -> None:
        if self._fsync:
            sync(self.root)


def _is_file(entry: os.DirEntry[str]) -> bool:
    return entry.is_file(follow_symlinks=False)


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mtime_ns, status.st_size, status.st_ino


def _content(path: Path) -> tuple[bytes, os.stat_result]:
    # A pipe or a device in the place of a zone must not make the reader wait.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            refuse(Conflict, f"{path} is no file")
        return stream.read(), status
