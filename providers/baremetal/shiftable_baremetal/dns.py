"""DNS on your own machines: one zone file for each zone, which any name server loads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from shiftable.dns._text import rdata_of, text_of
from shiftable.dns.driver import (
    DnsDriver,
    DnsFeatures,
    RecordChange,
    RecordKey,
    RecordSet,
    ZoneInfo,
    ZoneSpec,
    labels,
)
from shiftable.errors import (
    AlreadyExists,
    Conflict,
    Fault,
    InvalidArgument,
    NotFound,
    PreconditionFailed,
    classify_os,
)
from shiftable.features import Limit
from shiftable.paging import Page
from shiftable.wording import counted
from shiftable_baremetal._zonefile import Refusal, ZoneContent, ZoneFolder, file_name, refuse

if TYPE_CHECKING:
    from shiftable_baremetal.nameserver import Nameserver

__all__ = ["FEATURES", "ZoneFilesDriver"]

FEATURES = DnsFeatures(
    title="zone files",
    zones=True,
    types=None,
    any_name=True,
    policy=False,
    apex_ns=True,
    if_match=True,
    atomic_if_match=True,
    atomic_batch=True,
    max_rdata=Limit(
        65_280, "RFC 1035, 4.2.2: a message has 65,535 bytes; the rest is for name, question and signature"
    ),
    serve=True,
)

_LONGEST_FILE = 255 - len(".swp") - 1
"""Bytes of a file name of Linux, without what an editor appends."""

_PAGE = 500
_SOA_TTL, _NS_TTL = 900, 172_800
_TIMES = (7200, 900, 1_209_600, 300)
"""Refresh, retry, expire and time of negative answers: as Route 53 and Cloud DNS begin, but the last."""


@attrs.define
class ZoneFilesDriver(DnsDriver):
    """Zones as files in a folder: ``shop.example`` is ``<root>/shop.example.zone``.

    The files are master files (RFC 1035, 5): BIND, NSD and Knot load them, ``shiftable dns serve`` answers from them.
    One is written as a record a line, names in full, in the order of DNS, so that a difference shows what changed. It
    may be edited by hand: comments, ``$ORIGIN``, ``$TTL``, parentheses and relative names are understood; the next
    write brings it into the form above and keeps, of the comments, the one at the top. A file with an error in it is an
    error that names file and line, for that zone only. ``$INCLUDE`` is refused, and symbolic links are not followed.
    A character of the zone's name that a file name cannot hold, as the ``/`` of ``0/25.2.0.192.in-addr.arpa``, is
    ``%2F`` in it.

    **Credentials and permissions.** None; who reads or writes the folder decides. A new file gets mode 0644, less the
    umask; one that is there keeps its own.

    **Writes** take an exclusive lock on ``<root>/.lock``, are synced to the disk and renamed into place: a reader, and
    a machine after a crash, sees the old zone or the new one. Each write counts the SOA's serial up. The lock makes
    changes atomic among the processes of one machine that use this driver; an editor does not take it.

    Args:
        root: the folder.
        nameservers: the NS of new zones, fully qualified.
        fsync: whether a write waits until the disk has it.
    """

    _root: Path = attrs.field(converter=Path)
    _nameservers: tuple[str, ...] = ("localhost.",)
    _fsync: bool = True
    _folder: ZoneFolder = attrs.field(init=False, repr=False)

    @_folder.default
    def _open(self) -> ZoneFolder:
        return ZoneFolder(self._root, self._fsync)

    @property
    def provider(self) -> str:
        """The provider's name in errors."""
        return "baremetal"

    @property
    def features(self) -> DnsFeatures:
        """What this driver can do: all but routing."""
        return FEATURES

    @property
    def folder(self) -> ZoneFolder:
        """The files themselves, for the name server."""
        return self._folder

    def classify(self, exc: Exception) -> Fault | None:
        """Say what a refusal or an error of the operating system means."""
        return exc.fault if isinstance(exc, Refusal) else classify_os(exc)

    def check_name(self, name: str) -> str | None:
        """Say why no file could have the name of that zone."""
        why = super().check_name(name)
        if why is None and len(file_name(name)) > _LONGEST_FILE:
            return f"its file would be named {len(file_name(name))} bytes long; the limit is {_LONGEST_FILE}"
        return why

    def check_record(self, zone: str, record: RecordSet) -> str | None:
        """Say why a name server could not load or answer that record set."""
        for rdata in record.rdatas:
            if not _survives(record.type, rdata):
                return f"{rdata.hex()} is no value of {record.type}"
        size = _answer_size(record)
        if size > _LONGEST_MESSAGE:
            return f"an answer with it has {size:,} bytes; the limit is {_LONGEST_MESSAGE:,} (RFC 1035, 4.2.2)"
        return super().check_record(zone, record)

    # zones

    def create(self, spec: ZoneSpec) -> None:
        """Write the file of a new zone with SOA and NS."""
        self._folder.make()
        with self._folder.locked():
            if self._folder.has(spec.name):
                refuse(AlreadyExists, f"there is a file {self._folder.path(spec.name)}")
            self._folder.save(spec.name, _new(f"{spec.name}.", self._nameservers))

    def describe(self, name: str) -> ZoneSpec:
        """Return the zone, if it has a file."""
        if not self._folder.has(name):
            _fail_missing()
        return ZoneSpec(name=name)

    def update(self, current: ZoneSpec, spec: ZoneSpec) -> None:
        """Do nothing: a zone has no settings."""

    def destroy(self, name: str) -> None:
        """Remove the file of a zone that has only its SOA and NS."""
        if not self._folder.has(name):
            _fail_missing()
        with self._folder.locked():
            others = [key for key in self._folder.load(name).records if not _is_own(key, name)]
            if others:
                refuse(Conflict, f"it still has {counted(len(others), 'record set')}; delete them first")
            self._folder.remove(name)

    def names(self, cursor: str | None, limit: int | None) -> Page[str]:
        """Return one page of the zones that have a file, in order."""
        left = [zone for zone in self._folder.zones() if cursor is None or zone > cursor]
        size = _page_size(limit)
        names = [zone for zone in left if self.check_name(zone) is None]
        shown = tuple(names[:size])
        return Page(shown, shown[-1] if len(names) > size and shown else None)

    def info(self, zone: str) -> ZoneInfo:
        """Return the zone's own NS."""
        servers = self._folder.load(zone).records.get(RecordKey(f"{zone}.", "NS"))
        return ZoneInfo(name=zone, nameservers=servers.texts if servers else ())

    # reading

    def records(self, zone: str, *, name: str | None, cursor: str | None, limit: int | None) -> Page[RecordSet]:
        """Return one page of record sets, in the order of DNS."""
        content = self._folder.load(zone)
        size = _page_size(limit)
        start = 0 if cursor is None else _start(content, name, cursor)
        found: Sequence[RecordSet] = content.ordered if name is None else content.of_name(name)
        shown = tuple(found[start : start + size])
        return Page(shown, _cursor(shown[-1].key) if len(found) > start + size else None)

    # writing

    def change(self, zone: str, changes: tuple[RecordChange, ...]) -> None:
        """Carry out one batch, or nothing of it, and count the serial up."""
        if not self._folder.has(zone):
            _fail_missing()
        with self._folder.locked():
            content = self._folder.load(zone)
            for change in changes:
                if content.records.get(change.key) != change.before:
                    refuse(PreconditionFailed, f"{change.key} is not as it was")
                why = None if change.after is None else self.check_record(zone, change.after)
                if why is not None:
                    refuse(InvalidArgument, f"{change.key}: {why}")
            after = {change.key: change.after for change in changes}
            own = RecordKey(f"{zone}.", "SOA")
            after[own] = _counted(content.soa, after.get(own) or content.soa)
            self._folder.save(zone, content.changed(after))

    # optional

    def serve(self, port: int, *, update: bool) -> Nameserver:
        """Answer the zones on loopback; the files are read again when they change."""
        from shiftable_baremetal.nameserver import Nameserver

        return Nameserver(self, port=port, update=update)


_LONGEST_MESSAGE = 65_535


def _answer_size(record: RecordSet) -> int:
    """Return how long a message is that answers with a record set, with EDNS: a name that repeats takes two bytes."""
    name = sum(len(label) + 1 for label in labels(record.name)) + 1
    return 12 + name + 4 + sum(12 + len(rdata) for rdata in record.rdatas) + 11


def _survives(type: str, rdata: bytes) -> bool:
    """Tell whether a value that is printed is read as the same again; one that is malformed is not."""
    try:
        return rdata_of(type, text_of(type, rdata), ".") == rdata
    except ValueError:
        return False


def _fail_missing() -> None:
    raise Refusal(NotFound, "there is no such zone; `shiftable apply` makes what is declared", missing="zone")


def _is_own(key: RecordKey, zone: str) -> bool:
    return key.name == f"{zone}." and key.type in {"NS", "SOA"}


def _new(origin: str, nameservers: tuple[str, ...]) -> ZoneContent:
    soa = f"{nameservers[0]} hostmaster.{origin} 1 {' '.join(map(str, _TIMES))}"
    own = (
        RecordSet.of(origin, "SOA", [soa], ttl=_SOA_TTL),
        RecordSet.of(origin, "NS", nameservers, ttl=_NS_TTL),
    )
    return ZoneContent(origin, {record.key: record for record in own})


def _counted(before: RecordSet, wanted: RecordSet) -> RecordSet:
    """Return the SOA with the serial it has after a change: the one that is wanted if it is newer, else one more."""
    old, new = serial_of(before), serial_of(wanted)
    newer = 0 < (new - old) % 2**32 < 2**31  # RFC 1982, 3.2
    (rdata,) = wanted.rdatas
    serial = new if newer else (old + 1) % 2**32 or 1
    return attrs.evolve(wanted, rdatas=(rdata[:-20] + serial.to_bytes(4, "big") + rdata[-16:],))


def serial_of(soa: RecordSet) -> int:
    """Return the serial of an SOA."""
    return int.from_bytes(soa.rdatas[0][-20:-16], "big")


def _page_size(limit: int | None) -> int:
    return _PAGE if limit is None else min(limit, _PAGE)


def _cursor(key: RecordKey) -> str:
    return f"{key.name}\0{key.type}"


def _start(content: ZoneContent, name: str | None, cursor: str) -> int:
    """Return where the page goes on, also if the record set that ended the last one is gone."""
    owner, _, kind = cursor.partition("\0")
    if name is None:
        return content.after(RecordKey(owner, kind))
    return sum(record.type <= kind for record in content.of_name(name))
