"""DNS on PowerDNS, by its HTTP API."""

from __future__ import annotations

import json
import operator
import threading
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

import attrs

from shiftable.dns.driver import (
    DnsDriver,
    DnsFeatures,
    RecordChange,
    RecordKey,
    RecordSet,
    ZoneInfo,
    ZoneSpec,
    zone_name,
)
from shiftable.errors import Conflict, Fault, InvalidArgument, PreconditionFailed
from shiftable.features import Limit
from shiftable.paging import Page
from shiftable.wording import counted
from shiftable_baremetal import PowerdnsSettings
from shiftable_baremetal._dns_pages import Pages, slice_of
from shiftable_baremetal._failures import Broken, Stopped
from shiftable_baremetal._powerdns_errors import ApiError, classify
from shiftable_baremetal._powerdns_session import Session
from shiftable_baremetal._powerdns_text import gone, holds_name, record_set, rrset, unfit
from shiftable_baremetal._rfc2136_update import forward

__all__ = ["FEATURES", "PowerdnsDriver", "open_powerdns"]

FEATURES = DnsFeatures(
    title="PowerDNS by its HTTP API",
    zones=True,
    types=None,
    any_name=False,
    policy=True,
    apex_ns=True,
    if_match=True,
    atomic_if_match=False,
    atomic_batch=True,
    max_rdata=Limit(65_535, "RFC 1035, 3.2.1"),
)

_BY_NAME = 5  # up to so many names are asked for one by one; for more the whole zone is
_ATTEMPTS = 5
_FRAME = len('{"rrsets":[]}')
_MOST, _EACH = 8, 1_000  # a byte becomes at most five, and names stand beside; with room to spare
_COUNTING = frozenset({"DEFAULT", "INCREASE", "SOA-EDIT", "SOA-EDIT-INCREASE"})
"""Values of ``soa_edit_api`` with which each change of the API has a serial of its own."""

_NOTHING: tuple[tuple[RecordChange, ...], bytes] = ((), b"")
_ALPHABET = "only letters, digits, hyphens, _ and /, and a * in front"

Held = Mapping[RecordKey, RecordSet]


@attrs.frozen
class _Seen:
    """A whole zone, as it was at a serial.

    Args:
        digest: of the answer that told it; the same answer need not be read again.
    """

    digest: bytes
    serial: int
    counts: bool
    records: Held


@attrs.define
class PowerdnsDriver(DnsDriver):
    """DNS on one PowerDNS server (4.2 or later), by its HTTP API.

    Credentials: the server's ``api-key``, which may do everything. The server needs ``api=yes``.

    One batch is one request, which happens as a whole or not at all. The API knows no conditions: that a record set is
    what it was is seen by a read just before, and of many at once by the zone's serial; who writes in the same moment,
    or into the database past the API, is not noticed. Record sets that are switched off, ``ALIAS`` and ``LUA`` come
    with a policy. Comments stay when a record set changes and go when it goes.

    Args:
        nameservers: the NS of new zones.
        kind: of new zones.
        max_body: bytes of one request.
    """

    _session: Session
    _nameservers: tuple[str, ...] = ("localhost.",)
    _kind: str = "Native"
    _max_body: int = 2 * 1024 * 1024
    _seen: dict[str, _Seen] = attrs.field(factory=dict, init=False, repr=False)
    _drafted: tuple[tuple[RecordChange, ...], bytes] = attrs.field(default=_NOTHING, init=False, repr=False)
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

    def check_name(self, name: str) -> str | None:
        """Say why the server could not hold a zone of that name."""
        why = super().check_name(name)
        return why or (None if holds_name(f"{name}.") else f"PowerDNS takes no name like {name!r}: {_ALPHABET}")

    # zones

    def create(self, spec: ZoneSpec) -> None:
        """Make a zone with its SOA and NS."""
        origin = f"{spec.name}."
        soa = f"{self._nameservers[0]} hostmaster.{origin} 1 10800 3600 604800 3600"
        own = (
            RecordSet.of(origin, "SOA", [soa], ttl=3600),
            RecordSet.of(origin, "NS", self._nameservers, ttl=3600),
        )
        body = {"name": origin, "kind": self._kind, "nameservers": [], "rrsets": [rrset(record) for record in own]}
        self._session.send("POST", "/zones", _json(body), query={"rrsets": "false"})

    def describe(self, name: str) -> ZoneSpec:
        """Return the zone."""
        self._zone(name)
        return ZoneSpec(name=name)

    def update(self, current: ZoneSpec, spec: ZoneSpec) -> None:
        """Do nothing: a zone has no settings."""

    def destroy(self, name: str) -> None:
        """Delete a zone that has only its SOA and NS. The API would delete any: it is looked at before."""
        others = [key for key in self._all(name) if not (key.name == f"{name}." and key.type in {"NS", "SOA"})]
        if others:
            raise Stopped(Conflict, f"it still has {counted(len(others), 'record set')}; delete them first")
        self._session.send("DELETE", _path(name))

    def names(self, cursor: str | None, limit: int | None) -> Page[str]:
        """Return one page of the zones' names, in order."""
        found = self._session.get("/zones", dnssec="false")
        return slice_of((zone_name(zone["name"]) for zone in found if zone["name"] != "."), cursor, limit)

    def info(self, zone: str) -> ZoneInfo:
        """Return the zone's own NS, and the id that the API gives it."""
        own = self._named(zone, f"{zone}.").get(RecordKey(f"{zone}.", "NS"))
        return ZoneInfo(name=zone, nameservers=tuple(sorted(own.texts if own else ())), id=_path(zone)[7:])

    # reading

    def records(self, zone: str, *, name: str | None, cursor: str | None, limit: int | None) -> Page[RecordSet]:
        """Return one page of record sets, by name and type."""
        if name is not None:
            return self._pages.page(lambda: self._named(zone, name).values(), cursor, limit)
        return self._pages.page(lambda: self._all(zone).values(), cursor, limit)

    # writing

    def holds_name(self, name: str) -> bool:
        """Tell whether PowerDNS holds that owner name."""
        return holds_name(name)

    def check_record(self, zone: str, record: RecordSet) -> str | None:
        """Say why the server could not keep that record set exactly."""
        why = super().check_record(zone, record) or unfit(record)
        if why is None and record.policy:
            return None if _is_policy(record.policy.data) else "its policy is none that this driver has written"
        small = _FRAME + sum(_MOST * (len(rdata) + _EACH) for rdata in record.rdatas) <= self._max_body
        size = 0 if why or small else _FRAME + len(_json(rrset(record)))
        if size > self._max_body:
            return f"it takes {size:,} bytes of a request; the limit is {self._max_body:,} (webserver-max-bodysize)"
        return why

    def batches(self, changes: tuple[RecordChange, ...]) -> Iterator[tuple[RecordChange, ...]]:
        """Fill requests, by their bytes. The changes of one name stay together."""
        ordered = tuple(sorted(changes, key=lambda each: each.key))
        body = _body(ordered)
        if len(body) <= self._max_body:
            if ordered:
                self._drafted = ordered, body
                yield ordered
            return
        batch, size = list[RecordChange](), _FRAME
        for _, group in groupby(ordered, key=lambda each: each.key.name):
            together = tuple(group)
            needed = sum(len(_json(_item(change))) + 1 for change in together)
            if batch and size + needed - 1 > self._max_body:
                yield tuple(batch)
                batch, size = [], _FRAME
            batch += together
            size += needed
        if batch:
            yield tuple(batch)

    def change(self, zone: str, changes: tuple[RecordChange, ...]) -> None:
        """Send one request, if all record sets are what they were; what goes stands in it before what comes."""
        own = (RecordKey(f"{zone}.", "SOA"), RecordKey(f"{zone}.", "NS"))
        if any(change.after is None and change.key in own for change in changes):
            raise Stopped(InvalidArgument, "a zone cannot be without its SOA and NS; PowerDNS would delete them")
        for attempt in range(1, _ATTEMPTS + 1):
            held = self._state(zone, changes)
            if attempt > 1 and all(held.get(change.key) == change.after for change in changes):
                return  # it was ours, whose answer was lost
            moved = [str(change.key) for change in changes if held.get(change.key) != change.before]
            if moved:
                raise Stopped(PreconditionFailed, f"not as it was when the change was made: {', '.join(moved)}")
            try:
                self._session.send("PATCH", _path(zone), self._request(changes, held.get(own[0])))
            except (ApiError, Broken) as exc:
                # 500 is what it says when its database is busy with another writer. Whether this happened is looked at.
                if attempt == _ATTEMPTS or (isinstance(exc, ApiError) and exc.status != 500):
                    raise
                self._session.pause(attempt)
            else:
                return

    def _request(self, changes: tuple[RecordChange, ...], soa: RecordSet | None) -> bytes:
        """Return the request for a batch: the one that ``batches`` measured, unless a serial is missing."""
        (drafted, body), self._drafted = self._drafted, _NOTHING
        same = len(drafted) == len(changes) > 0 and all(map(operator.is_, drafted, changes))
        return body if same and not any(change.key.type == "SOA" for change in changes) else _body(changes, soa)

    # below: what the server has

    def _zone(self, zone: str) -> Any:  # noqa: ANN401  JSON
        return self._session.get(_path(zone), rrsets="false")

    def _all(self, zone: str) -> Held:
        """Fetch the whole zone."""
        with self._lock:
            seen = self._seen.get(zone)
        digest, found = self._session.get_new(_path(zone), seen.digest if seen is not None else None)
        if seen is None or found is not None:
            counts = found.get("soa_edit_api") in _COUNTING
            seen = _Seen(digest, found["serial"], counts, _read(found["rrsets"]))
            with self._lock:
                self._seen[zone] = seen
        return seen.records

    def _named(self, zone: str, name: str) -> Held:
        """Fetch what one name holds.

        The server leaves out what is switched off where it is asked for one name. Such record sets are taken from the
        whole zone, which is fetched again unless its serial is that of the last time.
        """
        found = self._session.get(_path(zone), rrset_name=name)
        with self._lock:
            seen = self._seen.get(zone)
        if seen is None or not seen.counts or seen.serial != found["serial"]:
            return {key: record for key, record in self._all(zone).items() if key.name == name}
        known = _read(each for each in found["rrsets"] if each["records"] and each["name"].lower() == name)
        return {**known, **{key: each for key, each in seen.records.items() if key.name == name and each.policy}}

    def _state(self, zone: str, changes: tuple[RecordChange, ...]) -> Held:
        """Return the record sets of the names that change, and the SOA where it is one of them."""
        names = {change.key.name for change in changes}
        if len(names) <= _BY_NAME:
            return {key: record for name in names for key, record in self._named(zone, name).items()}
        with self._lock:
            seen = self._seen.get(zone)
        if seen is not None and seen.counts and self._zone(zone)["serial"] == seen.serial:
            return seen.records
        return self._all(zone)


def _read(items: Iterable[Any]) -> dict[RecordKey, RecordSet]:
    records = (record_set(item, "baremetal") for item in items)
    return {record.key: record for record in records}


def _item(change: RecordChange, soa: RecordSet | None = None) -> dict[str, Any]:
    if change.after is None:
        assert change.before is not None  # noqa: S101  a change has one of them
        return gone(change.before)
    if change.key.type == "SOA" and change.after.rdatas:
        return rrset(attrs.evolve(change.after, rdatas=(forward(change.after, soa),)))
    return rrset(change.after)


def _body(changes: Iterable[RecordChange], soa: RecordSet | None = None) -> bytes:
    """Return a request: what goes, then what comes. One sentence of JSON is many times faster than a thousand."""
    ordered = sorted(changes, key=lambda change: change.after is not None)
    return _json({"rrsets": [_item(change, soa) for change in ordered]})


def _is_policy(data: str) -> bool:
    """Tell whether that is a policy's data as this driver writes them."""
    try:
        found = json.loads(data)
        return found.keys() <= {"comments", "records"} and all(
            each.keys() == {"content", "disabled"} for each in found["records"]
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _path(zone: str) -> str:
    from shiftable_baremetal._powerdns_session import zone_id

    return f"/zones/{zone_id(zone)}"


def open_powerdns(settings: PowerdnsSettings, nameservers: tuple[str, ...] = ("localhost.",)) -> PowerdnsDriver:
    """Make the driver that the settings describe. Connects to nobody.

    Raises:
        ConfigError: the settings are wrong.
    """
    session = Session(settings.address, settings.api_key, settings.server_id, ca_bundle=settings.ca_bundle)
    return PowerdnsDriver(session, nameservers, settings.kind, settings.max_body)
