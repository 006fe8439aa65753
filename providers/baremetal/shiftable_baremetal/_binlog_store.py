"""What a bucket holds of a whole MariaDB server, to restore any time: dumps, and the binary log written after them.

server/archive.json             whose it is: what the table shiftable.archive of the server says
server/archived.json            until when all of the log is there
server/backups/NAME.json        a dump that is complete: written last, with the size and SHA-256 of
server/base/NAME.sql.gz         what mariadb-dump wrote
server/binlog/EPOCH-FILE-BEGIN-END.gz           bytes of a file of the log, from BEGIN on; with -last.gz its last ones
server/binlog/EPOCH-FILE-BEGIN-partial.gz       those that are being written
server/times/EPOCH-FILE-BEGIN.json              how long the log was when
server/joins/EPOCH.json         which epoch this one goes on from, in the log of another server: after a failover

The parts of a file, unpacked one after another, are the server's file. An epoch ends where somebody has accepted a gap,
and where another server has taken over.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from shiftable.errors import Conflict, IntegrityError, NotFound, PreconditionFailed
from shiftable.tokens import Token
from shiftable_baremetal._archive import Archive, StoredBase, digest_of, zipped
from shiftable_baremetal._binlog import MAGIC, Event, Gtid, Join, Mark, Part, Place, Reached, events_of, following
from shiftable_baremetal._servers_engine import fail

__all__ = ["BinlogStore", "Dump", "LogEnd"]

_TIMES = ("until", "after", "latest")


@attrs.frozen(kw_only=True)
class Dump(StoredBase):
    """A complete dump.

    Args:
        epoch: of the log that follows it.
        file: of the log, where that follows it.
        offset: the same.
        made: when that file was made, in seconds: files of other servers have its name too.
        server: the number of the server in its log.
        settings: that a server must have, too, which is to hold the same.
    """

    epoch: int
    file: int
    offset: int
    made: int
    server: int
    settings: Mapping[str, str]

    @property
    def place(self) -> Place:
        """Where the log follows it."""
        return self.file, self.offset


@attrs.frozen(kw_only=True)
class LogEnd:
    """Until when all of the log is there.

    Args:
        until: by the server's clock, right before that was asked.
        after: right after.
        epoch: of the log.
        file: where it ended then.
        offset: the same.
        latest: that clock's latest time; it may have been set back.
    """

    until: datetime
    after: datetime
    epoch: int
    file: int
    offset: int
    latest: datetime

    @property
    def mark(self) -> Mark:
        """What was seen of the log then."""
        return Mark(file=self.file, offset=self.offset, first=self.after, last=self.until)


@attrs.frozen
class BinlogStore(Archive[Dump]):
    """The archive of one server."""

    ending = ".sql.gz"

    # the log

    def parts(self) -> list[Part]:
        """Return all parts, in order."""
        above = self._key("binlog/")
        names = [each.key.removeprefix(above).removesuffix(".gz") for each in self._bucket().list(above)]
        return sorted(part for name in names if (part := Part.read(name)) is not None)

    def put(self, part: Part, data: bytes, over: Token | None = None) -> None:
        """Store a part that is finished; what is there already must be the same.

        Args:
            over: what ``put_partial`` returned of it; what somebody else has stored of it since then stays.

        Raises:
            Conflict: it is not, so two servers have written under one name.
        """
        bucket, key = self._bucket(), self._log(part)
        try:
            bucket.put(key, zipped([data]), if_absent=True)
        except PreconditionFailed:
            if digest_of(self._pieces(key)) != digest_of([data]):
                why = f"the archive holds another {part.name} than the server has written"
                fail(Conflict, f"{why}: two servers that were one have parted; archive this one elsewhere")
        with contextlib.suppress(PreconditionFailed):
            written = over if bucket.features.delete_if_match else None
            bucket.delete(self._log(Part(part.epoch, part.file, part.begin)), if_match=written)

    def put_partial(self, part: Part, data: bytes, over: Token | None = None) -> Token:
        """Store what there is of the part that is being written, and return what is in place of it then.

        Args:
            over: what this returned before; ``None``: whatever is there.

        Raises:
            Conflict: somebody else has stored it since then, who may have more of it.
        """
        bucket = self._bucket()
        try:
            written = over if bucket.features.if_match else None
            return bucket.put(self._log(part), zipped([data]), if_match=written).token
        except PreconditionFailed:
            fail(Conflict, "another process archives the server, and has stored more of its log than this one")

    def read(self, part: Part) -> Iterator[bytes]:
        """Yield the bytes of a part; of one that has been finished meanwhile, all.

        Raises:
            IntegrityError: they were cut short or changed; or it is gone.
        """
        try:
            yield from self._pieces(self._log(part))
        except NotFound:
            for found in self.parts():
                if part.partial and not found.partial and found.series == part.series:
                    yield from self.read(found)
                    return
            fail(IntegrityError, f"{self._log(part)!r} is gone from the bucket")

    def content(self, chain: Iterable[tuple[Part, int]]) -> Iterator[bytes]:
        """Yield the bytes of parts that follow each other, but for those to be skipped of each.

        Raises:
            IntegrityError: some are missing.
        """
        for part, skipped in chain:
            left, size = skipped, 0
            for piece in self.read(part):
                size += len(piece)
                if len(piece) > left:
                    yield piece[left:]
                left = max(left - len(piece), 0)
            if not part.partial and size != part.end - part.begin:
                fail(IntegrityError, f"the stored part {part.name} of the log is not what it was")

    def reached(self, end: LogEnd) -> Reached:
        """Return which transactions the log has until its end; of its latest one at least a file must be stored."""
        found, parts = Reached(), self.parts()
        first = min((part.file for part in parts if part.epoch == end.epoch), default=end.file)
        for file in range(end.file, first - 1, -1):
            here, offset = Reached(), len(MAGIC)
            chain = [each for each in following(parts, end.epoch, file) if each[0].file == file]
            for event in events_of(self.content(chain)):
                if file == end.file and offset >= end.offset:
                    break
                here.take(event)
                offset += len(event.data)
            if file == end.file:
                found = here
            if here.latest is not None:
                found.latest, found.when = here.latest, here.when
                break
        return found

    def first_event(self, epoch: int, file: int) -> Event | None:
        """Return how a stored file begins."""
        found = [part for part in self.parts() if (part.epoch, part.file, part.begin) == (epoch, file, 0)]
        return next(events_of(self.read(found[0])), None) if found else None

    def times(self, epoch: int, file: int) -> list[Mark]:
        """Return what was seen of a log from a file on."""
        above, found = self._key("times/"), list[Mark]()
        for each in self._bucket().list(f"{above}{epoch:04d}-"):
            name = each.key.removeprefix(above)
            if int(name.split("-")[1]) >= file:
                found += self.marks(name)
        return found

    def marks(self, name: str) -> list[Mark]:
        """Return what was noted under a name; nothing, if there is nothing."""
        noted = self._noted(f"times/{name}") or {"marks": ()}
        return [
            Mark(file=at[0], offset=at[1], first=_read(first), last=_read(last)) for at, first, last in noted["marks"]
        ]

    def write_times(self, part: Part, marks: Sequence[Mark]) -> None:
        """Note what was seen while a part was written, of which that much is stored."""
        self._write_times(part.series, marks)

    def joins(self) -> list[Join]:
        """Return how epochs go on from others."""
        found = [self._get(each.key) for each in self._bucket().list(self._key("joins/"))]
        return [_read_join(json.loads(text)) for text in found if text is not None]

    def write_join(self, join: Join) -> None:
        """Note how an epoch goes on from another one."""
        self._bucket().put(self._join(join.epoch), json.dumps(attrs.asdict(join)).encode())

    def next_epoch(self) -> int:
        """Return an epoch that nothing is stored of."""
        stored = {part.epoch for part in self.parts()} | {join.epoch for join in self.joins()}
        return max(stored, default=0) + 1

    def end_epoch(self) -> None:
        """Keep until when all is there of a log after which there is a gap."""
        if (end := self.archived()) is not None:
            self._write_times(f"{Part(end.epoch, end.file, end.offset).series}-end", [end.mark])

    def archived(self) -> LogEnd | None:
        """Return until when all is there."""
        known = self._noted("archived.json")
        return None if known is None else LogEnd(**known | {name: _read(known[name]) for name in _TIMES})

    def until(self) -> datetime | None:
        """Return until when all of the log is there."""
        end = self.archived()
        return None if end is None else end.latest

    def write_archived(self, archived: LogEnd) -> None:
        """Note until when all is there: it is, before this is called."""
        told = attrs.asdict(archived)
        self._note("archived.json", told | {name: told[name].isoformat() for name in _TIMES})

    # one step each

    @property
    def _kind(self) -> type[Dump]:
        return Dump

    def _unneeded(self, left: Sequence[Dump]) -> list[str]:
        first = min((base.epoch, base.file) for base in left)
        old = [part for part in self.parts() if (part.epoch, part.file) < first]
        above = self._key("times/")
        times = [(each.key, each.key.removeprefix(above).split("-")) for each in self._bucket().list(above)]
        joins = [join.epoch for join in self.joins() if join.epoch <= first[0]]
        return [
            *(self._log(part) for part in old),
            *(self._join(epoch) for epoch in joins),
            *(key for key, (epoch, file, *_) in times if (int(epoch), int(file)) < first),
        ]

    def _write_times(self, name: str, marks: Sequence[Mark]) -> None:
        told = [(mark.place, mark.first.isoformat(), mark.last.isoformat()) for mark in marks]
        self._note(f"times/{name}.json", {"marks": told})

    def _join(self, epoch: int) -> str:
        return self._key(f"joins/{epoch:04d}.json")

    def _log(self, part: Part) -> str:
        return self._key(f"binlog/{part.name}.gz")


def _read_join(known: dict[str, Any]) -> Join:
    places: dict[str, Any] = {name: tuple(known[name]) for name in ("end", "to")}
    return Join(**known | places | {"last": [Gtid(**each) for each in known["last"]]})


def _read(time: str) -> datetime:
    return datetime.fromisoformat(time)
