"""What a bucket holds of a whole PostgreSQL server, to restore any time: base backups, and the WAL written after them.

server/archive.json             whose it is: the server's system identifier, and what its slot is called after
server/archived.json            until when all WAL is there
server/gap.json                 the last segment before a gap that somebody has accepted
server/backups/NAME.json        a base backup that is complete: written last, with the size and SHA-256 of
server/base/NAME.tar.gz         the data directory, as pg_basebackup writes it, its manifest inside
server/wal/SEGMENT.gz           a segment of WAL; SEGMENT.partial.gz: the one that is being written
server/wal/TIMELINE.history.gz

gzip and tar read it all. Nothing is changed in place but archived.json and the partial segment.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import secrets
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs

from shiftable.blob import Bucket
from shiftable.database.driver import BaseBackup
from shiftable.errors import (
    Conflict,
    IntegrityError,
    NotFound,
    OperationError,
    ParentNotFound,
    PreconditionFailed,
)
from shiftable_baremetal._servers_engine import fail

__all__ = ["ArchiveStore", "Archived", "Base", "Owner", "Segments", "begins_with"]

_OLD = timedelta(days=1)  # longer than a base backup stays without its manifest
_NAME = re.compile(r"\d{8}T\d{6}\.\d{6}Z")
_STAMP = "%Y%m%dT%H%M%S.%fZ"
_SEGMENT = re.compile(r"[0-9A-F]{24}")
_CHUNK = 1024 * 1024
_LABEL = re.compile(rb"^START WAL LOCATION: .*\(file ([0-9A-F]{24})\)", re.MULTILINE)


@attrs.frozen(kw_only=True)
class Owner:
    """Whose archive it is.

    Args:
        system: identifier of the server, which its standbys share and no other server has.
        id: of the archive.
    """

    system: str
    id: str


@attrs.frozen(kw_only=True)
class Archived:
    """Until when all WAL is there.

    Args:
        until: by the server's clock.
        lsn: what was written then.
        segment: that holds it, or the one before.
    """

    until: datetime
    lsn: int
    segment: str


@attrs.frozen(kw_only=True)
class Base:
    """A complete base backup.

    Args:
        segment: the first one of WAL that it needs.
        superuser: the server's first one.
        segment_size: bytes.
        unpacked: bytes of the data directory.
    """

    backup: BaseBackup
    segment: str
    superuser: str
    segment_size: int
    unpacked: int
    sha256: str

    def text(self) -> str:
        """Return the manifest."""
        told = attrs.asdict(self)
        told["backup"] |= {name: told["backup"][name].isoformat() for name in ("began", "restorable_from")}
        return json.dumps({"format": 1, **told}, indent=2)

    @classmethod
    def read(cls, text: bytes) -> Base:
        """Read a manifest."""
        known: dict[str, Any] = json.loads(text)
        del known["format"]
        told = known.pop("backup")
        times = {name: datetime.fromisoformat(told[name]) for name in ("began", "restorable_from")}
        return cls(backup=BaseBackup(**{**told, **times}), **known)


@attrs.frozen
class Segments:
    """Names of segments of WAL: eight digits of the timeline, sixteen of the number, in two halves.

    Args:
        size: bytes of one.
    """

    size: int

    def number(self, name: str) -> int:
        """Return the number of a segment, whatever its timeline."""
        return int(name[8:16], 16) * (2**32 // self.size) + int(name[16:24], 16)

    def holding(self, lsn: int) -> int:
        """Return the number of the segment that holds the last byte before a position."""
        return max(lsn - 1, 0) // self.size

    def end(self, name: str) -> int:
        """Return the position after a segment."""
        return (self.number(name) + 1) * self.size

    def named(self, timeline: str, number: int) -> str:
        """Return the name of a segment."""
        high, low = divmod(number, 2**32 // self.size)
        return f"{timeline}{high:08X}{low:08X}"


@attrs.frozen
class ArchiveStore:
    """The archive of one server.

    Args:
        bucket: opens the bucket, which exists.
        prefix: of all keys.
    """

    _bucket: Callable[[], Bucket]
    _prefix: str = ""

    # whose it is

    def owner(self) -> Owner | None:
        """Return whose archive it is, if there is one."""
        text = self._text("archive.json")
        return None if text is None else Owner(**json.loads(text))

    def claim(self, system: str) -> Owner:
        """Begin an archive for a server, unless it is that server's already; another one's is a conflict."""
        made = Owner(system=system, id=secrets.token_hex(4))
        with contextlib.suppress(PreconditionFailed):
            self._bucket().put(self._key("archive.json"), json.dumps(attrs.asdict(made)).encode(), if_absent=True)
        return self.check(system)

    def check(self, system: str) -> Owner:
        """Return whose archive it is; fail unless it is that server's."""
        owner = self.owner()
        if owner is None:
            fail(Conflict, "its log is not archived: start `shiftable db archive` first, and keep it running")
        if owner.system != system:
            why = f"the bucket has the archive of another server there, {owner.system}, and this one is {system}"
            fail(Conflict, f"{why}: give this one another prefix in `snapshots`")
        return owner

    # WAL

    def names(self) -> list[str]:
        """Return the names of all that is there of WAL, in order: segments, partial ones and histories."""
        above = self._key("wal/")
        return sorted(each.key.removeprefix(above).removesuffix(".gz") for each in self._bucket().list(above))

    def segments(self) -> list[str]:
        """Return the names of all whole segments, in order."""
        return [name for name in self.names() if _SEGMENT.fullmatch(name)]

    def put(self, name: str, path: Path) -> None:
        """Store a finished segment or history; what is there already must be the same.

        Raises:
            Conflict: it is not, so two servers have written under one name.
        """
        key = self._wal(name)
        try:
            self._bucket().put(key, _zipped(_read(path)), if_absent=True)
        except PreconditionFailed:
            if _digest(self._pieces(key)) != _digest(_read(path)):
                why = f"the archive holds another {name} than the server has written"
                fail(Conflict, f"{why}: two servers that were one have parted; archive this one elsewhere")
        if _SEGMENT.fullmatch(name):
            self._bucket().delete(self._wal(f"{name}.partial"))

    def put_partial(self, name: str, path: Path) -> None:
        """Store what there is of the segment that is being written, in place of what there was of it."""
        self._bucket().put(self._wal(f"{name}.partial"), _zipped(_read(path)))

    def fetch(self, name: str, path: Path) -> bool:
        """Write a segment or a history to a file; false if there is none. Of a segment a part is good enough.

        Raises:
            IntegrityError: it was cut short or changed.
        """
        for found in (name, f"{name}.partial", name):  # the archiver may just be putting the whole in the part's place
            with contextlib.suppress(NotFound), path.open("wb") as file:
                for piece in self._pieces(self._wal(found)):
                    file.write(piece)
                return True
        return False

    def accept_gap(self, after: str) -> None:
        """Note that nothing goes on after a segment, and that this is known."""
        self._bucket().put(self._key("gap.json"), json.dumps({"after": after}).encode())

    def accepted_gap(self) -> str | None:
        """Return the segment after which a gap is known to be."""
        text = self._text("gap.json")
        return None if text is None else str(json.loads(text)["after"])

    def archived(self) -> Archived | None:
        """Return until when all is there."""
        text = self._text("archived.json")
        if text is None:
            return None
        known: dict[str, Any] = json.loads(text)
        return Archived(**{**known, "until": datetime.fromisoformat(known["until"])})

    def write_archived(self, archived: Archived) -> None:
        """Note until when all is there: it is, before this is called."""
        told = {**attrs.asdict(archived), "until": archived.until.isoformat()}
        self._bucket().put(self._key("archived.json"), json.dumps(told).encode())

    # base backups

    def bases(self) -> list[Base]:
        """Return all base backups that are complete, the oldest first."""
        keys = [each.key for each in self._bucket().list(self._key("backups/"))]
        return [Base.read(text) for key in keys if (text := self._get(key)) is not None]

    def names_of_bases(self) -> list[str]:
        """Return the names of all base backups that are complete, the oldest first."""
        above = self._key("backups/")
        return [each.key.removeprefix(above).removesuffix(".json") for each in self._bucket().list(above)]

    def base(self, name: str) -> Base:
        """Return a base backup."""
        text = self._text(f"backups/{name}.json") if _NAME.fullmatch(name) else None
        if text is None:
            fail(NotFound, f"there is no base backup {name!r}")
        return Base.read(text)

    def add(self, data: Iterator[bytes], finish: Callable[[], dict[str, Any]]) -> Base:
        """Store a base backup, and then its manifest; or nothing.

        Args:
            data: what pg_basebackup writes.
            finish: called when all of it is stored; says what else is to be noted.
        """
        began = datetime.now(UTC)
        name = began.strftime(_STAMP)
        bucket, key = self._bucket(), self._key(f"base/{name}.tar.gz")
        with contextlib.suppress(OperationError):  # it can be done another time
            self._sweep(bucket)
        measured = _Measured(data)
        try:
            bucket.put(key, measured.stored())
            known = finish()
            backup = BaseBackup(
                name=name,
                version=known.pop("version"),
                began=began,
                restorable_from=known.pop("restorable_from"),
                size=measured.size,
            )
            base = Base(
                backup=backup,
                segment=begins_with(bytes(measured.head)),
                unpacked=measured.unpacked,
                sha256=measured.digest.hexdigest(),
                **known,
            )
            bucket.put(self._key(f"backups/{name}.json"), base.text().encode())
        except BaseException:
            with contextlib.suppress(OperationError):  # what cannot be deleted now goes with a later one
                bucket.delete(key)
            raise
        return base

    def tar(self, base: Base) -> Iterator[bytes]:
        """Yield the data directory as a tar file; fail after the last piece unless it is what was stored once.

        Raises:
            IntegrityError: it was changed or cut short.
        """
        digest, size = hashlib.sha256(), 0

        def seen() -> Iterator[bytes]:
            nonlocal size
            for piece in self._stored(key):
                digest.update(piece)
                size += len(piece)
                yield piece

        key = self._key(f"base/{base.backup.name}.tar.gz")
        try:
            yield from _unzipped(seen(), key)
        except NotFound:
            fail(IntegrityError, f"the base backup's {key!r} is gone from the bucket")
        if (size, digest.hexdigest()) != (base.backup.size, base.sha256):
            fail(IntegrityError, f"{key!r} is not what was stored; nothing is made of it")

    def remove(self, name: str) -> None:
        """Delete a base backup: it vanishes at once, then its data go, and WAL that only it needs."""
        self.base(name)
        self._remove([name])

    def prune(self, earliest: datetime) -> None:
        """Delete what no restore to that time or a later one needs."""
        old = [base.backup.name for base in self.bases() if base.backup.restorable_from <= earliest]
        self._remove(old[:-1])

    def _remove(self, names: Sequence[str]) -> None:
        """Delete base backups, manifests first; and WAL before the first that is left. None left: all WAL stays."""
        bucket = self._bucket()
        _forget(bucket, [self._key(f"backups/{name}.json") for name in names])
        _forget(bucket, [self._key(f"base/{name}.tar.gz") for name in names])
        left = self.bases()
        if not left:
            return
        segments = Segments(left[0].segment_size)
        first = min(segments.number(base.segment) for base in left)
        wal = [name for name in self.names() if _SEGMENT.fullmatch(name[:24]) and segments.number(name) < first]
        _forget(bucket, [self._wal(name) for name in wal])

    def _sweep(self, bucket: Bucket) -> None:
        """Delete what killed backups have left: it is old, and has no manifest."""
        above, until, known = self._key("base/"), datetime.now(UTC) - _OLD, set(self.names_of_bases())
        left = [each.key for each in bucket.list(above) if each.modified < until]
        _forget(bucket, [key for key in left if key.removeprefix(above).removesuffix(".tar.gz") not in known])
        bucket.abort_uploads(above, older_than=_OLD)

    # one step each

    def _key(self, name: str) -> str:
        return f"{self._prefix}server/{name}"

    def _wal(self, name: str) -> str:
        return self._key(f"wal/{name}.gz")

    def _text(self, name: str) -> bytes | None:
        return self._get(self._key(name))

    def _get(self, key: str) -> bytes | None:
        try:
            return self._bucket().get(key)
        except ParentNotFound:
            raise
        except NotFound:
            return None

    def _pieces(self, key: str) -> Iterator[bytes]:
        return _unzipped(self._stored(key), key)

    def _stored(self, key: str) -> Iterator[bytes]:
        with self._bucket().open(key) as source:
            while piece := source.read(_CHUNK):
                yield piece


@attrs.define
class _Measured:
    """What flows into the bucket, and what is known of it when all has."""

    _data: Iterator[bytes]
    head: bytearray = attrs.field(factory=bytearray, init=False)
    unpacked: int = attrs.field(default=0, init=False)
    size: int = attrs.field(default=0, init=False)
    digest: Any = attrs.field(factory=hashlib.sha256, init=False)

    def stored(self) -> Iterator[bytes]:
        """Yield what is stored."""
        for piece in _zipped(self._told()):
            self.digest.update(piece)
            self.size += len(piece)
            yield piece

    def _told(self) -> Iterator[bytes]:
        for piece in self._data:
            self.head += piece[: max(0, 64 * 1024 - len(self.head))]
            self.unpacked += len(piece)
            yield piece


def begins_with(head: bytes) -> str:
    """Return the first segment that a base backup needs, by its label, which is the first file in it."""
    with contextlib.suppress(tarfile.TarError), tarfile.open(fileobj=io.BytesIO(head), mode="r|") as tar:
        first = tar.next()
        label = tar.extractfile(first) if first is not None and first.name == "backup_label" else None
        if label is not None and (found := _LABEL.search(label.read())) is not None:
            return found[1].decode()
    return fail(IntegrityError, "what pg_basebackup wrote does not begin with the label of a backup; nothing is kept")


def _zipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(1, wbits=31)  # the fastest: 31 is gzip's format
    for piece in pieces:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()


def _unzipped(pieces: Iterable[bytes], key: str) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        for piece in pieces:
            rest = piece
            while rest and not unpacker.eof:
                yield unpacker.decompress(rest, _CHUNK)
                rest = unpacker.unconsumed_tail
        yield unpacker.flush()
    except zlib.error:
        fail(IntegrityError, f"{key!r} is not what was stored: its content does not unpack")
    if not unpacker.eof:
        fail(IntegrityError, f"{key!r} is not what was stored: its end is missing")


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            yield piece


def _digest(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _forget(bucket: Bucket, keys: Sequence[str]) -> None:
    failed = bucket.delete_many(keys)
    for error in failed.values():
        raise error
