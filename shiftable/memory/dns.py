"""DNS in the memory of this process: the reference model of the driver contract."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import islice
from typing import NoReturn, TypeVar

import attrs

from shiftable.dns.driver import DnsDriver, DnsFeatures, RecordChange, RecordKey, RecordSet, ZoneInfo, ZoneSpec
from shiftable.errors import AlreadyExists, Conflict, Fault, NotFound, OperationError, PreconditionFailed, QuotaExceeded
from shiftable.features import Limit
from shiftable.memory._faults import MemoryFault, classify
from shiftable.paging import Page
from shiftable.wording import counted

__all__ = ["FEATURES", "MemoryDnsDriver"]

FEATURES = DnsFeatures(
    title="this process",
    zones=True,
    types=None,
    any_name=True,
    policy=True,
    apex_ns=True,
    if_match=True,
    atomic_if_match=True,
    atomic_batch=True,
    max_batch=Limit(1000, "chosen, as Cloud DNS"),
    max_rdata=Limit(65_535, "RFC 1035, 3.2.1"),
    max_record_sets=Limit(100_000, "chosen"),
)

_NAMESERVERS = ("ns1.memory.invalid.", "ns2.memory.invalid.")
_NS = tuple(b"\3ns%d\6memory\7invalid\0" % number for number in (1, 2))
_SOA_NAMES = _NS[0] + b"\12hostmaster\6memory\7invalid\0"
_SOA_TIMES = b"".join(seconds.to_bytes(4, "big") for seconds in (7200, 900, 1_209_600, 300))

T = TypeVar("T")


@attrs.define
class MemoryDnsDriver(DnsDriver):
    """DNS in memory; nobody is answered. No credentials, no permissions, nothing survives the process.

    Args:
        features: what it shall be able to do; with less, it stands in for a lesser provider.
        page_size: items of one page.
    """

    _features: DnsFeatures = FEATURES
    _page_size: int = 100
    _zones: dict[str, dict[RecordKey, RecordSet]] = attrs.field(factory=dict, init=False, repr=False)
    _lock: threading.RLock = attrs.field(factory=threading.RLock, init=False, repr=False, eq=False)

    @property
    def provider(self) -> str:
        """The provider's name in errors."""
        return "memory"

    @property
    def features(self) -> DnsFeatures:
        """What this driver can do: everything, unless it was made otherwise."""
        return self._features

    def classify(self, exc: Exception) -> Fault | None:
        """Say what a native exception means."""
        return classify(exc)

    # zones

    def create(self, spec: ZoneSpec) -> None:
        """Make a zone with its SOA and NS."""
        origin = f"{spec.name}."
        own = (
            RecordSet(name=origin, type="SOA", ttl=900, rdatas=(_soa(1),)),
            RecordSet(name=origin, type="NS", ttl=172_800, rdatas=_NS),
        )
        with self._lock:
            if spec.name in self._zones:
                _fail(AlreadyExists, "there is such a zone")
            self._zones[spec.name] = {record.key: record for record in own}

    def describe(self, name: str) -> ZoneSpec:
        """Return the zone."""
        with self._lock:
            self._zone(name)
        return ZoneSpec(name=name)

    def update(self, current: ZoneSpec, spec: ZoneSpec) -> None:
        """Do nothing: a zone has no settings."""

    def destroy(self, name: str) -> None:
        """Delete a zone that has only its SOA and NS."""
        with self._lock:
            others = [key for key in self._zone(name) if not _is_own(key, name)]
            if others:
                _fail(Conflict, f"it still has {counted(len(others), 'record set')}; delete them first")
            del self._zones[name]

    def names(self, cursor: str | None, limit: int | None) -> Page[str]:
        """Return one page of the zones' names, in order."""
        with self._lock:
            return self._page(sorted(self._zones), str, cursor, limit)

    def info(self, zone: str) -> ZoneInfo:
        """Return name servers that nobody can ask."""
        with self._lock:
            self._zone(zone)
        return ZoneInfo(name=zone, nameservers=_NAMESERVERS)

    # reading

    def records(self, zone: str, *, name: str | None, cursor: str | None, limit: int | None) -> Page[RecordSet]:
        """Return one page of record sets, by name and type."""
        with self._lock:
            here = self._zone(zone)
            found = sorted((record for record in here.values() if name in (None, record.name)), key=_mark)
            return self._page(found, _mark, cursor, limit)

    # writing

    def change(self, zone: str, changes: tuple[RecordChange, ...]) -> None:
        """Carry out one batch, or nothing of it."""
        with self._lock:
            here = self._zone(zone)
            for change in changes:
                if here.get(change.key) != change.before:
                    _fail(PreconditionFailed, f"{change.key} is not as it was")
            new = dict(here)
            for change in changes:
                if change.after is None:
                    del new[change.key]
                else:
                    new[change.key] = change.after
            limit = self._features.max_record_sets
            if limit is not None and len(new) > max(limit.value, len(here)):
                _fail(QuotaExceeded, f"a zone holds {limit} record sets")
            _count_up(new, RecordKey(f"{zone}.", "SOA"))
            self._zones[zone] = new

    # what they share; all under the lock

    def _zone(self, name: str) -> dict[RecordKey, RecordSet]:
        found = self._zones.get(name)
        if found is None:
            raise MemoryFault(
                Fault(NotFound, "there is no such zone; `shiftable apply` makes what is declared", missing="zone")
            )
        return found

    def _page(self, items: list[T], mark: Callable[[T], str], cursor: str | None, limit: int | None) -> Page[T]:
        """Cut one page of sorted items; the cursor is the mark of the last one of the page before."""
        left = [item for item in items if cursor is None or mark(item) > cursor]
        shown = tuple(islice(left, self._page_size if limit is None else min(limit, self._page_size)))
        return Page(shown, mark(shown[-1]) if len(left) > len(shown) else None)


def _fail(error: type[OperationError], message: str) -> NoReturn:
    raise MemoryFault(Fault(error, message))


def _is_own(key: RecordKey, zone: str) -> bool:
    return key.name == f"{zone}." and key.type in {"NS", "SOA"}


def _mark(record: RecordSet) -> str:
    """Order record sets as their keys do: no name or type has a NUL in it."""
    return f"{record.key.name}\0{record.key.type}\0{record.key.set_id}"


def _soa(serial: int) -> bytes:
    return _SOA_NAMES + serial.to_bytes(4, "big") + _SOA_TIMES


def _count_up(zone: dict[RecordKey, RecordSet], key: RecordKey) -> None:
    """Raise the serial, as a name server does (RFC 1982: it wraps)."""
    soa = zone[key]
    (rdata,) = soa.rdatas
    serial = (int.from_bytes(rdata[-20:-16], "big") + 1) % 2**32
    zone[key] = attrs.evolve(soa, rdatas=(rdata[:-20] + serial.to_bytes(4, "big") + rdata[-16:],))
