"""DNS on name servers that take updates (RFC 2136) and give their zones (AXFR): BIND, Knot and others."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

import attrs

from shiftable.dns.driver import (
    DnsDriver,
    DnsFeatures,
    RecordChange,
    RecordKey,
    RecordSet,
    ZoneInfo,
    ZoneSpec,
    is_within,
    labels,
    zone_name,
)
from shiftable.errors import (
    ConfigError,
    Conflict,
    Fault,
    InvalidArgument,
    NotFound,
    OperationError,
    PermissionDenied,
    PreconditionFailed,
    Unsupported,
)
from shiftable.features import Limit
from shiftable.paging import Page
from shiftable_baremetal import Rfc2136Settings
from shiftable_baremetal._axfr import Answer, Malformed, applied, record_sets
from shiftable_baremetal._dns_pages import Pages, slice_of
from shiftable_baremetal._failures import Stopped
from shiftable_baremetal._rfc2136_errors import NOERROR, Lost, Refused, classify
from shiftable_baremetal._rfc2136_session import Session
from shiftable_baremetal._rfc2136_update import LARGEST, Draft, dry, size, update
from shiftable_baremetal._tsig import key_of

__all__ = ["FEATURES", "Rfc2136Driver", "open_rfc2136"]

FEATURES = DnsFeatures(
    title="name servers with RFC 2136 and AXFR",
    zones=False,
    types=None,
    any_name=True,
    policy=False,
    apex_ns=True,
    lone_ds=False,  # BIND ignores it, and says nothing
    if_match=True,
    atomic_if_match=True,
    atomic_batch=True,
    max_rdata=Limit(60_000, "RFC 1035, 4.2.2: a message has at most 65,535 bytes"),
)

_SOA, _NS = 6, 2
_SIGNATURE = 512  # bytes that the longest TSIG takes: a name, an algorithm, 64 of SHA-512
_ROOM = LARGEST - _SIGNATURE
_ATTEMPTS = 4
_BIND_VALUES = 100  # BIND 9.18.28 and later: max-records-per-type, by default
_UNMET = frozenset({3, 6, 7, 8})  # NXDOMAIN, YXDOMAIN, YXRRSET, NXRRSET: a prerequisite does not hold
_SERVFAIL, _NXDOMAIN, _REFUSED, _NOTAUTH = 2, 3, 5, 9
_HOSTS = frozenset({"A", "AAAA", "MX", "WKS"})  # whose owners BIND wants to be names of hosts
_HOST_CHARACTERS = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-")

Held = Mapping[RecordKey, RecordSet]


@attrs.define
class Rfc2136Driver(DnsDriver):
    """DNS on one name server, by updates and transfers over TCP.

    Credentials: a TSIG key, or none where the server goes by addresses. Permissions: transfer and update of each zone;
    in BIND ``allow-transfer`` and ``update-policy { grant KEY zonesub ANY; }``, in Knot an ``acl`` with
    ``action: [transfer, update]``. Zones are made at the server.

    One batch is one message, which happens as a whole or not at all. Its prerequisites name each value that was there;
    that a TTL is what it was is seen by a read just before, as RFC 2136 compares values only. A DS stands only beside
    NS: BIND drops any other without a word.

    A zone that was read before is read again by an incremental transfer (IXFR): it costs the changes since then, by the
    serial of its SOA, as with a secondary.

    Args:
        zones: those that ``names`` lists: a name server tells nobody.
    """

    _session: Session
    _zones: tuple[str, ...] = ()
    _held: dict[str, dict[RecordKey, RecordSet]] = attrs.field(factory=dict, init=False, repr=False)
    _pages: Pages = attrs.field(factory=Pages, init=False, repr=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False, eq=False)

    @property
    def provider(self) -> str:
        """The provider's name in errors."""
        return "baremetal"

    @property
    def features(self) -> DnsFeatures:
        """What this driver can do."""
        return FEATURES

    def classify(self, exc: Exception) -> Fault | None:
        """Say what a native exception means."""
        return classify(exc)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    # zones

    def create(self, spec: ZoneSpec) -> None:
        """Refuse: the protocol has no way to make a zone."""
        raise Stopped(Unsupported, f"make the zone {spec.name} at the server, and give the key its transfer and update")

    def describe(self, name: str) -> ZoneSpec:
        """Return the zone, if the server has it."""
        self._ask(name, _SOA)
        return ZoneSpec(name=name)

    def update(self, current: ZoneSpec, spec: ZoneSpec) -> None:
        """Do nothing: a zone has no settings."""

    def destroy(self, name: str) -> None:
        """Refuse: the protocol has no way to delete a zone."""
        raise Stopped(Unsupported, f"delete the zone {name} at the server")

    def names(self, cursor: str | None, limit: int | None) -> Page[str]:
        """Return one page of the zones that the settings name."""
        return slice_of(self._zones, cursor, limit)

    def info(self, zone: str) -> ZoneInfo:
        """Return the zone's own NS."""
        found = record_sets(self._ask(zone, _NS))
        names = [text for record in found for text in record.texts if record.type == "NS"]
        return ZoneInfo(name=zone, nameservers=tuple(sorted(names)))

    # reading

    def records(self, zone: str, *, name: str | None, cursor: str | None, limit: int | None) -> Page[RecordSet]:
        """Return one page of record sets, by name and type."""
        if name is not None:
            held = self._current(zone).values()
            return self._pages.page(lambda: (record for record in held if record.name == name), cursor, limit)
        return self._pages.page(lambda: self._current(zone).values(), cursor, limit)

    # writing

    def check_record(self, zone: str, record: RecordSet) -> str | None:
        """Say why a record set does not fit into a message beside what it replaces."""
        why = super().check_record(zone, record)
        if why is None and not record.policy:
            needed = size(f"{zone}.", (RecordChange(before=None, after=record),))
            if needed > _ROOM - 300:
                return f"it takes {needed:,} bytes of a message, which has {LARGEST:,} (RFC 1035, 4.2.2)"
        return why

    def batches(self, changes: tuple[RecordChange, ...]) -> Iterator[tuple[RecordChange, ...]]:
        """Fill messages, by their bytes. The changes of one name stay together."""
        origin = self._origin_of(changes)
        batch, left = list[RecordChange](), _ROOM - 300
        for _, group in groupby(sorted(changes, key=lambda each: each.key), key=lambda each: each.key.name):
            together = tuple(group)
            needed = size(origin, together)
            if batch and needed > left:
                yield tuple(batch)
                batch, left = [], _ROOM - 300
            batch += together
            left -= needed
        if batch:
            yield tuple(batch)

    def change(self, zone: str, changes: tuple[RecordChange, ...]) -> None:
        """Send one update; find out which change was refused if it was."""
        origin, repeated = f"{zone}.", False
        for attempt in range(1, _ATTEMPTS + 1):
            if repeated and self._happened(zone, changes):
                return  # it was ours, whose answer was lost
            soa = self._checked(zone, changes)
            draft = update(origin, changes, soa)
            try:
                rcode = self._sent(draft)
            except Lost:
                if attempt == _ATTEMPTS:
                    raise
                repeated = True  # with its prerequisites it cannot happen twice
                continue
            if rcode in _UNMET:
                held = self._all(zone)
                if repeated and self._happened(zone, changes):
                    return
                if soa is not None and attempt < _ATTEMPTS and not _moved(held, changes):
                    continue  # only the serial has gone on
                raise _unmet(held, changes)
            if rcode != NOERROR:
                raise self._refusal(origin, changes, soa, rcode)
            return

    # below: what the server has

    def _ask(self, zone: str, kind: int) -> Iterable[Answer]:
        """Ask for a record set of the zone itself."""
        try:
            answer = self._session.ask(labels(f"{zone}."), kind)
        except Refused as exc:
            rcode, authoritative = exc.rcode, True
        else:
            rcode, authoritative = answer.rcode, answer.authoritative
        if rcode in {_NXDOMAIN, _REFUSED, _NOTAUTH} or not authoritative:
            raise Stopped(NotFound, "the server does not have this zone", "", "zone")
        if rcode != NOERROR:
            raise Refused(rcode)
        return answer.answers

    def _all(self, zone: str) -> Held:
        """Fetch the whole zone."""
        try:
            transfer = self._session.transfer(labels(f"{zone}."))
        except Refused as exc:
            if exc.rcode in {_REFUSED, _NOTAUTH}:
                self._ask(zone, _SOA)  # fails if the zone is missing
            if exc.rcode == _NOTAUTH:
                raise Stopped(PermissionDenied, _NO_TRANSFER, "NOTAUTH") from exc
            if exc.rcode == _REFUSED:
                raise Stopped(PermissionDenied, _NO_TRANSFER, "REFUSED") from exc
            raise
        return self._keep(zone, {record.key: record for record in record_sets(transfer.records)})

    def _current(self, zone: str) -> Held:
        """Bring what is known of the zone up to date."""
        with self._lock:
            held = self._held.get(zone)
        if held is None:
            return self._all(zone)
        try:
            transfer = self._session.transfer(labels(f"{zone}."), held[RecordKey(f"{zone}.", "SOA")].rdatas[0])
            if transfer.steps is None:
                return self._keep(zone, {record.key: record for record in record_sets(transfer.records)})
            if not transfer.steps or transfer.soa is None:
                return held
            return self._keep(zone, applied(transfer.steps, transfer.soa, held))
        except (Malformed, Refused):
            return self._all(zone)

    def _keep(self, zone: str, records: dict[RecordKey, RecordSet]) -> Held:
        with self._lock:
            self._held[zone] = records
        return records

    def _origin_of(self, changes: tuple[RecordChange, ...]) -> str:
        """Return the zone that changes are for, as owners take less room within it: the portable class has read it."""
        with self._lock:
            known = [f"{zone}." for zone in self._held]
        fitting = [zone for zone in known if all(is_within(change.key.name, zone) for change in changes)]
        return min(fitting, key=len, default=".")  # of two the one with which owners take more

    # below: what the server says of a batch

    def _happened(self, zone: str, changes: tuple[RecordChange, ...]) -> bool:
        held = self._current(zone)
        return all(held.get(change.key) == change.after for change in changes)

    def _checked(self, zone: str, changes: tuple[RecordChange, ...]) -> RecordSet | None:
        """Compare what a prerequisite does not: TTLs, and the SOA but for its serial. Return the SOA if it changes."""
        if all(change.before is None for change in changes):
            return None
        held = self._current(zone)
        moved = _moved(held, changes)
        if moved:
            raise Stopped(PreconditionFailed, f"not as it was when the change was made: {', '.join(moved)}")
        own = RecordKey(f"{zone}.", "SOA")
        return held.get(own) if any(change.key == own for change in changes) else None

    def _sent(self, draft: Draft) -> int:
        if draft.size > _ROOM:
            raise Stopped(
                InvalidArgument,
                f"the change takes {draft.size:,} bytes of a message, which has {LARGEST:,} (RFC 1035, 4.2.2)",
            )
        return self._session.send(draft.wire)

    def _refusal(
        self, origin: str, changes: tuple[RecordChange, ...], soa: RecordSet | None, rcode: int
    ) -> Stopped | Refused:
        """Find the change that the server refuses, and say why it may."""
        if rcode == _NOTAUTH:  # which Knot also answers to those who may not, and to those without a key
            self._ask(origin.removesuffix("."), _SOA)
            return _verdict(changes[0], _REFUSED) if len(changes) == 1 else Refused(_REFUSED)
        while len(changes) > 1:
            middle = len(changes) // 2
            for half in (changes[:middle], changes[middle:]):
                said = self._opinion(origin, half, soa)
                if said != NOERROR:
                    changes, rcode = half, said
                    break
            else:
                return _together(changes, rcode)
        return _verdict(changes[0], rcode)

    def _opinion(self, origin: str, changes: tuple[RecordChange, ...], soa: RecordSet | None) -> int:
        """Return what the server would say of a batch, without carrying it out."""
        rcode = self._session.send(dry(origin, changes, soa).wire)
        return NOERROR if rcode in _UNMET else rcode  # another writer


_NO_TRANSFER = "the server does not let this key or address transfer the zone: allow it (BIND: allow-transfer)"


def _moved(held: Held, changes: tuple[RecordChange, ...]) -> list[str]:
    return [str(change.key) for change in changes if held.get(change.key) != change.before]


def _unmet(held: Held, changes: tuple[RecordChange, ...]) -> Stopped:
    """Say which prerequisite does not hold."""
    moved = _moved(held, changes)
    if moved:
        return Stopped(PreconditionFailed, f"not as it was when the change was made: {', '.join(moved)}")
    at = {change.key.name: change for change in changes}
    types: dict[str, set[str]] = {}
    for key in held:
        if key.name in at:
            types.setdefault(key.name, set()).add(key.type)
    for change in changes:
        there = types.get(change.key.name, set())
        if change.before is None and change.key.type != "CNAME" and "CNAME" in there:
            return Stopped(Conflict, f"{change.key}: a CNAME stands there, beside which nothing can")
        if change.before is None and change.key.type == "CNAME" and there:
            return Stopped(Conflict, f"{change.key}: a CNAME cannot stand beside {', '.join(sorted(there))}")
        if change.before is None and change.key.type == "DS" and "NS" not in there:
            return Stopped(InvalidArgument, f"{change.key}: a DS stands only beside NS; write them first, or together")
        if change.after is None and change.key.type == "NS" and "DS" in there:
            return Stopped(Conflict, f"{change.key}: a DS stands beside it; delete it first, or together")
    names = ", ".join(str(change.key) for change in changes[:5])
    return Stopped(PreconditionFailed, f"the server found one of them not as it was, and then was: {names}")


def _together(changes: tuple[RecordChange, ...], rcode: int) -> Stopped:
    fault = Refused(rcode).fault
    names = f"{changes[0].key} to {changes[-1].key}"
    return Stopped(fault.error, f"{fault.message}; each half of {names} it would take", fault.code)


def _verdict(change: RecordChange, rcode: int) -> Stopped:
    """Say what a refusal of one change means."""
    fault, after = Refused(rcode).fault, change.after
    error: type[OperationError] = fault.error
    why = fault.message
    if after is not None and rcode == _REFUSED and change.key.type in _HOSTS and not _is_host(change.key.name):
        error = InvalidArgument
        why = f"the server wants names of hosts as owners of {change.key.type} (BIND: check-names primary ignore)"
    elif after is not None and rcode in {_SERVFAIL, _REFUSED} and len(after.rdatas) > _BIND_VALUES:
        error = InvalidArgument  # of this one record set: others are taken
        why = f"it has {len(after.rdatas):,} values; BIND takes {_BIND_VALUES}, unless max-records-per-type says more"
    return Stopped(error, f"{change.key}: {why}", fault.code)


def _is_host(name: str) -> bool:
    """Tell whether a name can be a host's; a wildcard may stand first (RFC 1123, 2.1)."""
    parts = labels(name)
    return all(
        _HOST_CHARACTERS.issuperset(part) and not part.startswith(b"-") and not part.endswith(b"-")
        for part in parts[parts[:1] == (b"*",) :]
    )


def open_rfc2136(settings: Rfc2136Settings) -> Rfc2136Driver:
    """Make the driver that the settings describe. Connects to nobody.

    Raises:
        ConfigError: the settings are wrong, or dnspython is not installed.
    """
    try:
        import dns.rdatatype  # noqa: F401  what types are called
    except ImportError as exc:
        raise ConfigError("DNS needs dnspython: pip install 'shiftable-baremetal[dns]'") from exc
    host, port = _address(settings.server)
    key = None
    if (settings.key_name is None) != (settings.key_secret is None):
        raise ConfigError("rfc2136.key_name and rfc2136.key_secret belong together: give both, or none")
    if settings.key_name is not None and settings.key_secret is not None:
        key = key_of(settings.key_name, settings.key_secret.reveal(), settings.key_algorithm)
    return Rfc2136Driver(Session(host, port, key), tuple(zone_name(zone) for zone in settings.zones))


def _address(server: str) -> tuple[str, int]:
    """Split ``host``, ``host:port``, ``[address]:port``."""
    host, colon, port = server.rpartition(":")
    if not colon or server.endswith("]") or (":" in host and not host.endswith("]")):
        host, port = server, "53"
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"rfc2136.server is {server!r}; write it ns.example:53, 192.0.2.1:53 or [2001:db8::1]:53")
    return host.removeprefix("[").removesuffix("]"), int(port)
