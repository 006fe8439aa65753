"""A MariaDB server's binary log: its events, the parts in which it is stored, and where a time is in it.

An event has a whole second: that in which its statement began. That is no time of a commit, and sessions may set it. So
whoever archives the log notes what it sees: at this time the log was so long. Only between two such marks events count.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

import attrs

from shiftable.errors import IntegrityError
from shiftable_baremetal._servers_engine import fail

__all__ = [
    "MAGIC",
    "Cut",
    "Event",
    "Gtid",
    "Join",
    "Known",
    "Mark",
    "Part",
    "Place",
    "Reached",
    "events_of",
    "following",
]

MAGIC = b"\xfebin"
"""What each file begins with."""

Place = tuple[int, int]
"""The number of a file, and an offset in it."""

_HEADER = struct.Struct("<IBIIIH")  # MariaDB documentation, "2-Binlog Event Header"
_SEQUENCE = struct.Struct("<QI")  # "GTID_EVENT"
_COUNT, _LISTED = struct.Struct("<I"), struct.Struct("<IIQ")  # "GTID_LIST_EVENT"
_ARTIFICIAL = 0x20
_TRANSACTIONAL = 4  # of the flags of a GTID event
_ROTATE, _FORMAT, _ANNOTATED, _GTID, _GTID_LIST = 4, 15, 160, 162, 163
_OF_THE_FILE = {3, _ROTATE, _FORMAT, _ANNOTATED, 161, _GTID_LIST, 164}  # they belong to no transaction
_PART = re.compile(r"(\d{4,})-(\d{10})-(\d{16})-(?:(\d{16})(-last)?|partial)")


@attrs.frozen
class Gtid:
    """What a transaction is called on all servers that have it.

    Args:
        domain: transactions of one domain are in the same order everywhere.
        server: the number of the one where it was committed first.
        sequence: its number in the domain.
    """

    domain: int
    server: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.domain}-{self.server}-{self.sequence}"


@attrs.frozen
class Event:
    """One event, as the server sends it and as files have it."""

    data: bytes
    when: int = attrs.field(init=False)
    kind: int = attrs.field(init=False)
    server: int = attrs.field(init=False)
    end: int = attrs.field(init=False)
    flags: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        if len(self.data) < _HEADER.size:
            fail(IntegrityError, "an event of the server's log is cut short")
        when, kind, server, size, end, flags = _HEADER.unpack_from(self.data)
        if size != len(self.data):
            fail(IntegrityError, "an event of the server's log is cut short")
        for name, value in (("when", when), ("kind", kind), ("server", server), ("end", end), ("flags", flags)):
            object.__setattr__(self, name, value)

    @property
    def begins_file(self) -> bool:
        """Whether it says how the events after it are written, and when the file was made."""
        return self.kind == _FORMAT

    @property
    def begins_transaction(self) -> bool:
        """Whether a transaction, or a statement that is one, begins with it."""
        return self.kind == _GTID

    @property
    def transactional(self) -> bool:
        """Whether what begins with it changes only tables that a dump sees as of one moment, and no schema."""
        return bool(self.data[_HEADER.size + 12] & _TRANSACTIONAL)

    @property
    def gtid(self) -> Gtid:
        """What the transaction is called that begins with it."""
        sequence, domain = _SEQUENCE.unpack_from(self.data, _HEADER.size)
        return Gtid(domain, self.server, sequence)

    @property
    def before(self) -> list[Gtid]:
        """The last transactions before its file, of each server in each domain, a domain's last one last."""
        if self.kind != _GTID_LIST:
            return []
        (count,) = _COUNT.unpack_from(self.data, _HEADER.size)
        rows = range(count & 0xFFFFFFF)
        begin = _HEADER.size + _COUNT.size
        return [Gtid(*_LISTED.unpack_from(self.data, begin + _LISTED.size * row)) for row in rows]

    @property
    def origin(self) -> tuple[int, int]:
        """When a file was made that it begins, and the number of its server: of two files that differ, so do these."""
        return self.when, self.server

    @property
    def of_the_file(self) -> bool:
        """Whether it belongs to its file, whichever transactions that holds."""
        return self.kind in _OF_THE_FILE and self.kind != _ANNOTATED

    @property
    def timed(self) -> bool:
        """Whether its time is that of a statement."""
        return self.kind not in _OF_THE_FILE

    @property
    def next_file(self) -> str | None:
        """The file that follows in the stream; no file has this event."""
        if self.kind != _ROTATE or not self.flags & _ARTIFICIAL:
            return None
        summed = self.data[-4:] == zlib.crc32(self.data[:-4]).to_bytes(4, "little")  # if the server sums its log
        return self.data[_HEADER.size + 8 : -4 if summed else None].decode()

    def follows(self, offset: int) -> bool:
        """Tell whether it stands at that offset of its file, as far as 32 bits tell."""
        return (offset + len(self.data)) % 2**32 == self.end


def events_of(pieces: Iterable[bytes]) -> Iterator[Event]:
    """Yield the events of a file."""
    left, begun = bytearray(), False
    for piece in pieces:
        left += piece
        if not begun and len(left) >= len(MAGIC):
            if left[: len(MAGIC)] != MAGIC:
                fail(IntegrityError, "a stored part of the server's log does not begin as one does")
            begun = True
            del left[: len(MAGIC)]
        done = 0
        while begun and len(left) - done >= _HEADER.size:
            size = _HEADER.unpack_from(left, done)[3]
            if size < _HEADER.size:
                fail(IntegrityError, "a stored part of the server's log has an event without a size")
            if len(left) - done < size:
                break
            yield Event(bytes(left[done : done + size]))
            done += size
        del left[:done]
    if left:
        fail(IntegrityError, "a stored part of the server's log ends in the middle of an event")


@attrs.frozen(order=True)
class Part:
    """A part of one file, as it is stored.

    Args:
        epoch: counts logs that do not go on from each other, from 1.
        file: its number in the server's names.
        begin: its first byte.
        end: the byte after its last one; 0: it is being written.
        last: the file ends with it.
    """

    epoch: int
    file: int
    begin: int
    end: int = 0
    last: bool = False

    @property
    def partial(self) -> bool:
        """Whether it is being written: there is more of it than there was."""
        return not self.end

    @property
    def name(self) -> str:
        """What it is called in the bucket."""
        end = "partial" if self.partial else f"{self.end:016d}{'-last' if self.last else ''}"
        return f"{self.series}-{end}"

    @property
    def series(self) -> str:
        """What all that begins there is called."""
        return f"{self.epoch:04d}-{self.file:010d}-{self.begin:016d}"

    @classmethod
    def read(cls, name: str) -> Part | None:
        """Read a name; another thing has none."""
        found = _PART.fullmatch(name)
        if found is None:
            return None
        return cls(int(found[1]), int(found[2]), int(found[3]), int(found[4] or 0), found[5] is not None)


def following(parts: Sequence[Part], epoch: int, file: int) -> Iterator[tuple[Part, int]]:
    """Yield the parts that follow each other from the beginning of a file on, each with the bytes of it to skip.

    Parts overlap where an archiver went on that did not know yet that it had been replaced: what they share is equal.
    """
    by_file: dict[int, list[Part]] = {}
    for part in parts:
        if part.epoch == epoch:
            by_file.setdefault(part.file, []).append(part)
    offset = 0
    while True:
        here = [each for each in by_file.get(file, ()) if each.begin <= offset]
        whole = [each for each in here if each.end > offset or (each.last and each.end == offset)]
        partial = [each for each in here if each.partial]
        if not whole and not partial:
            return
        part = max(whole, key=lambda each: (each.end, each.last)) if whole else max(partial)
        yield part, offset - part.begin
        if part.partial:
            return
        file, offset = (file + 1, 0) if part.last else (file, part.end)


@attrs.frozen(kw_only=True)
class Mark:
    """What was seen of a log while it was written.

    Args:
        file: where it ended.
        offset: where it ended.
        first: all that lies before was committed before this time.
        last: all that lies after was committed after this time.
    """

    file: int
    offset: int
    first: datetime
    last: datetime

    @property
    def place(self) -> Place:
        """Where the log ended."""
        return self.file, self.offset


@attrs.define
class Cut:
    """Finds where the log of a time ends: what was committed later is after it.

    Args:
        when: the time.
        least: all before is of that time, whatever its events say.
        most: all after is later, whatever its events say.
        seen: the clock when ``most`` was seen; an event that says a later time has that from a session's own clock, and
            is of the time that is asked for if one after it is.
    """

    when: datetime
    least: Place
    most: Place
    seen: datetime | None = None
    held: Place | None = attrs.field(default=None, init=False)
    """Where the log ends if it is not known until the end of its file."""
    _begin: Place | None = attrs.field(default=None, init=False)

    @classmethod
    def at(cls, when: datetime, marks: Iterable[Mark], least: Place, most: Place, since: datetime | None = None) -> Cut:
        """Return the cut at a time, narrowed by what was seen of the log: where the clock had it for the last time.

        Args:
            since: the clock at ``least``, if that is known.
        """
        seen = sorted(marks, key=lambda mark: mark.place)
        if since is not None and not any(mark.place == least and mark.first <= since <= mark.last for mark in seen):
            begin = Mark(file=least[0], offset=least[1], first=since, last=since)
            seen.insert(sum(1 for mark in seen if mark.place <= least), begin)
        runs = list[list[Mark]]()  # in each the clock ran on; between two it was set back
        for mark in seen:
            if runs and runs[-1][-1].last <= mark.first:
                runs[-1].append(mark)
            else:
                runs.append([mark])
        if not runs:
            return cls(when, least, max(least, most))
        had = [at for at, run in enumerate(runs) if min(run[0].first, run[0].last) <= when <= run[-1].last]
        later = [at for at, run in enumerate(runs) if run[-1].last >= when]
        chosen = had[-1] if had else later[0] if later else len(runs) - 1
        before = [mark.place for run in runs[:chosen] for mark in run]
        before += [mark.place for mark in runs[chosen] if mark.first <= when]
        least = max(least, *before) if before else least
        after = [mark for mark in runs[chosen] if mark.last >= when and mark.place >= least]
        if not after:
            return cls(when, least, max(least, most))
        nearest = after[0].place
        return cls(when, least, min(most, nearest), max(mark.first for mark in after if mark.place == nearest))

    def before(self, event: Event, file: int, offset: int) -> Place | None:
        """Return where the log ends, if that is before the event at that place, or before its transaction."""
        place, end = (file, offset), (file, offset + len(event.data))
        if event.begins_transaction or not event.timed or self._begin is None:
            self._begin = place
        if end <= self.least:
            return None
        begin = max(self._begin, self.least)
        if end > self.most:
            return self.held or begin
        if not event.timed:
            return None
        if self.seen is not None and event.when > self.seen.timestamp():
            self.held = self.held or begin
        elif event.when >= int(self.when.timestamp()):
            return self.held or begin
        elif self.held is not None and begin > self.held:
            self.held = None
        return None


@attrs.define
class Reached:
    """Which transactions are in a log until a place.

    Args:
        last: of each domain.
        latest: of all.
        when: the second in which that began.
    """

    last: dict[int, Gtid] = attrs.field(factory=dict)
    latest: Gtid | None = None
    when: int = 0
    _of_servers: dict[tuple[int, int], int] = attrs.field(factory=dict, init=False)

    def take(self, event: Event) -> None:
        """Go on over an event."""
        if event.begins_transaction:
            self.latest, self.when = event.gtid, event.when
        for gtid in (event.gtid,) if event.begins_transaction else event.before:
            self.last[gtid.domain] = gtid
            self._of_servers[gtid.domain, gtid.server] = gtid.sequence

    def has(self, gtid: Gtid) -> bool:
        """Tell whether a transaction is there: servers number theirs in order."""
        return self._of_servers.get((gtid.domain, gtid.server), -1) >= gtid.sequence


@attrs.define
class Known:
    """Tells which transactions of a log another one has, too: in each domain all until a certain one.

    Args:
        last: of the domains whose one has not come yet.
    """

    last: dict[int, Gtid]

    def knows(self, event: Event) -> bool:
        """Tell whether the transaction that begins with an event is there; asked of each one in order."""
        for gtid in event.before:
            self._pass(gtid)
        return event.begins_transaction and self._pass(event.gtid)

    def _pass(self, gtid: Gtid) -> bool:
        before = gtid.domain in self.last
        if self.last.get(gtid.domain) == gtid:
            del self.last[gtid.domain]
        return before


@attrs.frozen(kw_only=True)
class Join:
    """How the log of one epoch goes on in another server's, which has the same transactions.

    Args:
        before: the epoch that goes on.
        end: where that ends.
        epoch: that goes on from it.
        server: the number of its server.
        first: its first file, which begins with transactions that are known.
        to: all before in it is known.
        last: of the known transactions, one of each domain.
    """

    before: int
    end: Place
    epoch: int
    server: int
    first: int
    to: Place
    last: Sequence[Gtid]

    def known(self) -> Known:
        """Return what tells transactions that the epoch before has."""
        return Known({gtid.domain: gtid for gtid in self.last})
