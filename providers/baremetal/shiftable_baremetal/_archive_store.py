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
import io
import re
import tarfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import attrs

from shiftable.errors import Conflict, IntegrityError, NotFound, PreconditionFailed
from shiftable_baremetal._archive import Archive, StoredBase, digest_of, zipped
from shiftable_baremetal._servers_engine import fail

__all__ = ["ArchiveStore", "Archived", "Base", "Segments", "begins_with"]

_SEGMENT = re.compile(r"[0-9A-F]{24}")
_CHUNK = 1024 * 1024
_LABEL = re.compile(rb"^START WAL LOCATION: .*\(file ([0-9A-F]{24})\)", re.MULTILINE)


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
class Base(StoredBase):
    """A complete base backup.

    Args:
        segment: the first one of WAL that it needs.
        superuser: the server's first one.
        segment_size: bytes.
    """

    segment: str
    superuser: str
    segment_size: int


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
class ArchiveStore(Archive[Base]):
    """The archive of one server."""

    ending = ".tar.gz"

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
            self._bucket().put(key, zipped(_read(path)), if_absent=True)
        except PreconditionFailed:
            if digest_of(self._pieces(key)) != digest_of(_read(path)):
                why = f"the archive holds another {name} than the server has written"
                fail(Conflict, f"{why}: two servers that were one have parted; archive this one elsewhere")
        if _SEGMENT.fullmatch(name):
            self._bucket().delete(self._wal(f"{name}.partial"))

    def put_partial(self, name: str, path: Path) -> None:
        """Store what there is of the segment that is being written, in place of what there was of it."""
        self._bucket().put(self._wal(f"{name}.partial"), zipped(_read(path)))

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
        self._note("gap.json", {"after": after})

    def accepted_gap(self) -> str | None:
        """Return the segment after which a gap is known to be."""
        noted = self._noted("gap.json")
        return None if noted is None else str(noted["after"])

    def archived(self) -> Archived | None:
        """Return until when all is there."""
        known = self._noted("archived.json")
        return None if known is None else Archived(**{**known, "until": datetime.fromisoformat(known["until"])})

    def write_archived(self, archived: Archived) -> None:
        """Note until when all is there: it is, before this is called."""
        self._note("archived.json", {**attrs.asdict(archived), "until": archived.until.isoformat()})

    # base backups

    @property
    def _kind(self) -> type[Base]:
        return Base

    def _unneeded(self, left: Sequence[Base]) -> list[str]:
        segments = Segments(left[0].segment_size)
        first = min(segments.number(base.segment) for base in left)
        wal = [name for name in self.names() if _SEGMENT.fullmatch(name[:24]) and segments.number(name) < first]
        return [self._wal(name) for name in wal]

    def _wal(self, name: str) -> str:
        return self._key(f"wal/{name}.gz")


def begins_with(head: bytes) -> str:
    """Return the first segment that a base backup needs, by its label, which is the first file in it."""
    with contextlib.suppress(tarfile.TarError), tarfile.open(fileobj=io.BytesIO(head), mode="r|") as tar:
        first = tar.next()
        label = tar.extractfile(first) if first is not None and first.name == "backup_label" else None
        if label is not None and (found := _LABEL.search(label.read())) is not None:
            return found[1].decode()
    return fail(IntegrityError, "what pg_basebackup wrote does not begin with the label of a backup; nothing is kept")


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            yield piece
