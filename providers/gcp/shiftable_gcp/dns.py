"""DNS in Google's Cloud DNS."""

from __future__ import annotations

import hashlib
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, TypeVar

import attrs
from google.api_core import exceptions as api_errors

from shiftable.dns.driver import (
    DnsDriver,
    DnsFeatures,
    RecordChange,
    RecordKey,
    RecordSet,
    ZoneInfo,
    ZoneSpec,
    is_within,
    zone_name,
)
from shiftable.errors import AlreadyExists, Conflict, Fault, NotFound, PreconditionFailed, Timeout
from shiftable.features import Limit
from shiftable.fibers import sleep
from shiftable.paging import Page
from shiftable.waiting import wait_until
from shiftable_gcp import _features
from shiftable_gcp._dns_records import ALIAS, PROVIDER, policy_fields, policy_values, read, size, told
from shiftable_gcp._rest import Rest
from shiftable_gcp._session import Session
from shiftable_gcp.errors import classify

__all__ = ["CloudDnsDriver", "CloudDnsFault"]

_MAX_BYTES = 100_000  # of rdata in one change, the same
_MAX_NS = Limit(8, f"{_features.DNS_QUOTAS}: name servers of one delegation")

_HOST = "https://dns.googleapis.com"
_PAGE = 1000
_LONGEST_ID = 63
_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
_PLAIN = re.compile(r"[a-z][a-z0-9]*(?:[.-][a-z0-9]+)*")
_PLACE = re.compile(r"entity\.change\.(additions|deletions)\[(?:(\d+)\]|([^\]]*)\]\[(\w+)\])")
_SOON, _RARELY = timedelta(seconds=0.2), timedelta(seconds=5)

T = TypeVar("T")
Json = Mapping[str, Any]


class CloudDnsFault(Exception):
    """What this driver found out itself, or how a refusal of Cloud DNS is to be read; that is its cause then."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


@attrs.define
class CloudDnsDriver(DnsDriver):
    """Cloud DNS by REST: the official client loses routing policies and has not changed for years.

    A zone is found by its DNS name, whatever its id. Only public zones are seen: private ones answer inside networks
    of Google's. What Cloud DNS answers by weight, place or health, and its ``ALIAS``, are kept as policies.

    A change is one call that happens whole or not at all. Its deletions have to match what there is, and its additions
    nothing, so Google decides between writers. A change whose answer was lost is looked for among the changes.

    Args:
        patience: how long a change may take until Google's servers have been told.
    """

    session: Session
    patience: timedelta = timedelta(minutes=5)
    _rest: Rest = attrs.field(init=False, repr=False)
    _ids: dict[str, str] = attrs.field(factory=dict, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._rest = Rest(self.session, _HOST)

    @property
    def provider(self) -> str:
        """The provider's name in errors."""
        return PROVIDER

    @property
    def features(self) -> DnsFeatures:
        """What this driver can do."""
        return _features.DNS

    def classify(self, exc: Exception) -> Fault | None:
        """Say what a native exception means."""
        if isinstance(exc, CloudDnsFault):
            return exc.fault
        fault = classify(exc)
        if fault is not None and fault.error is NotFound and "managedZone" in fault.message:
            return attrs.evolve(fault, missing="zone")
        return fault

    # checks: they send nothing

    def check_name(self, name: str) -> str | None:
        """Say why there could be no zone of that name."""
        why = super().check_name(name)
        if why is None and not all(_LABEL.fullmatch(label) for label in name.split(".")):
            return "a zone's name has letters, digits, hyphens and underscores (Cloud DNS API reference, ManagedZone)"
        return why

    def check_record(self, zone: str, record: RecordSet) -> str | None:
        """Say why Cloud DNS could not keep that record set exactly."""
        if record.policy is None or record.policy.provider != PROVIDER:
            return super().check_record(zone, record) or _check_values(record)
        why = _check_policy(zone, record)
        if why is not None:
            return why
        is_routed = "routingPolicy" in policy_fields(record.policy.data)  # else a type that Google alone knows
        known = attrs.evolve(record, rdatas=(), type=record.type if is_routed else "CNAME")
        return super().check_record(zone, known)

    def batches(self, changes: tuple[RecordChange, ...]) -> Iterator[tuple[RecordChange, ...]]:
        """Split by what one change may hold: additions, deletions, and the bytes of their values."""
        batch, load = list[RecordChange](), _Load()
        for _, group in groupby(sorted(changes, key=lambda change: change.key), key=lambda change: change.key.name):
            together = tuple(group)
            more = _Load.of(together)
            if batch and not (load + more).fits:
                yield tuple(batch)
                batch, load = [], _Load()
            batch += together
            load += more
        if batch:
            yield tuple(batch)

    # zones

    def create(self, spec: ZoneSpec) -> None:
        """Make a public zone. Its id is its name with hyphens for dots, where that is one and nobody has it."""
        found = self._zones_of(spec.name)
        if found:
            raise CloudDnsFault(Fault(AlreadyExists, f"there is such a zone, with the id {found[0]['name']!r}"))
        readable, certain = _zone_id(spec.name), _zone_id(spec.name, certain=True)
        try:
            self._create(readable, spec.name)
        except api_errors.Conflict:
            if readable == certain or self._zones_of(spec.name):
                raise
            self._create(certain, spec.name)  # the id is another zone's

    def describe(self, name: str) -> ZoneSpec:
        """Return the zone."""
        self._look_up(name)
        return ZoneSpec(name=name)

    def update(self, current: ZoneSpec, spec: ZoneSpec) -> None:
        """Do nothing: a zone has no settings of ours."""

    def destroy(self, name: str) -> None:
        """Delete a zone that has only its SOA and NS."""
        id_, attempts = str(self._look_up(name)["name"]), self.session.attempts()
        try:
            self._rest.call("DELETE", self._path(id_), attempts=attempts)
        except api_errors.NotFound:
            if not attempts.doubtful:  # else the try whose answer was lost did it
                raise
        self._ids.pop(name, None)

    def names(self, cursor: str | None, limit: int | None) -> Page[str]:
        """Return one page of the names of public zones, in the order of their ids."""
        answer = self._rest.get(self._path(), **_paging(cursor, limit))
        found = (zone_name(zone["dnsName"]) for zone in answer.get("managedZones", ()) if _is_public(zone))
        return Page(tuple(dict.fromkeys(found)), answer.get("nextPageToken") or None)

    def info(self, zone: str) -> ZoneInfo:
        """Return the zone's name servers and its id."""
        found = self._look_up(zone)
        servers = tuple(f"{server.removesuffix('.')}." for server in found.get("nameServers", ()))
        return ZoneInfo(name=zone, nameservers=servers, id=found["name"])

    def max_record_sets(self, zone: str) -> Limit | None:
        """Return the limit of the project's zones, which Google raises when asked; else the usual one."""
        self._look_up(zone)
        try:
            quota = self._rest.get(f"/dns/v1/projects/{self.session.require_project()}").get("quota", {})
        except api_errors.Forbidden:
            quota = {}
        name, usual = "rrsetsPerManagedZone", _features.DNS.max_record_sets
        return Limit(int(quota[name]), f"the project's quota {name}") if name in quota else usual

    # reading

    def records(self, zone: str, *, name: str | None, cursor: str | None, limit: int | None) -> Page[RecordSet]:
        """Return one page of record sets."""
        query = _paging(cursor, limit) | ({} if name is None else {"name": name})

        def page(id_: str) -> Page[RecordSet]:
            answer = self._rest.get(self._path(id_, "rrsets"), **query)
            found = tuple(read(each) for each in answer.get("rrsets", ()))
            if not all(is_within(record.name, f"{zone}.") for record in found):
                raise _no_zone(zone)  # the id is another zone's by now
            return Page(found, answer.get("nextPageToken") or None)

        return self._in_zone(zone, page)

    # writing

    def change(self, zone: str, changes: tuple[RecordChange, ...]) -> None:
        """Carry out one batch, and wait until Google has told its name servers."""
        self._in_zone(zone, lambda id_: self._change(id_, changes))

    def _change(self, id_: str, changes: tuple[RecordChange, ...]) -> None:
        deletions = [change.before for change in changes if change.before is not None]
        additions = [change.after for change in changes if change.after is not None]
        body = {
            "deletions": [told(record, listed=True) for record in deletions],
            "additions": [told(record) for record in additions],
        }
        path, attempts, began = self._path(id_, "changes"), self.session.attempts(), time.monotonic()
        try:
            made = self._rest.call("POST", path, body=body, attempts=attempts)
        except api_errors.GoogleAPICallError as exc:
            executed = self._executed(path, additions, deletions, began) if attempts.doubtful else None
            if executed is None:
                named = self._named(exc, additions, deletions)
                if named is None:
                    raise
                raise named from exc
            made = executed
        self._wait(path, made)

    def _wait(self, path: str, change: Json) -> None:
        """Return when the change is done."""
        state = [change]

        def done() -> bool | None:
            if state[0].get("status") == "pending":
                return None
            return True

        def pause(seconds: float) -> None:
            sleep(seconds)
            state[0] = self._rest.get(f"{path}/{change['id']}")

        try:
            wait_until(
                done,
                what=f"the change {change['id']}",
                timeout=self.patience,
                interval=_SOON,
                longest=_RARELY,
                sleep=pause,
            )
        except Timeout as exc:
            why = f"{exc.message}; Google has taken it and may still be carrying it out"
            raise CloudDnsFault(Fault(Timeout, why)) from exc

    def _executed(self, path: str, additions: list[RecordSet], deletions: list[RecordSet], began: float) -> Json | None:
        """Look for a change whose answer was lost among those since it was sent."""
        cursor: str | None = None
        while True:
            query = _paging(cursor, 100) | {"sortBy": "changeSequence", "sortOrder": "descending"}
            answer = self._rest.get(path, **query)
            for change in answer.get("changes", ()):
                if self.session.clock.is_before(datetime.fromisoformat(change["startTime"]), began):
                    return None
                if _is_of(change, "additions", additions) and _is_of(change, "deletions", deletions):
                    found: Json = change
                    return found
            cursor = answer.get("nextPageToken")
            if cursor is None:
                return None

    def _named(self, exc: Exception, additions: list[RecordSet], deletions: list[RecordSet]) -> CloudDnsFault | None:
        """Return a refusal with the name of its record set, of which Cloud DNS tells the index, or name and type."""
        fault = self.classify(exc)
        place = fault and _PLACE.search(fault.message)
        if fault is None or not place:
            return None
        part, index, name, kind = place.groups()
        sent = deletions if part == "deletions" else additions
        key = RecordKey(name, kind) if index is None else sent[int(index)].key
        moved = fault.error is (NotFound if part == "deletions" else AlreadyExists)
        error = PreconditionFailed if moved else fault.error
        return CloudDnsFault(attrs.evolve(fault, error=error, message=f"{key}: {fault.message}"))

    # what they share

    def _path(self, *parts: str) -> str:
        base = f"/dns/v1/projects/{self.session.require_project()}/managedZones"
        return "/".join((base, *parts))

    def _in_zone(self, zone: str, call: Callable[[str], T]) -> T:
        """Call with the id of a zone; once more if it is no longer the id that it was."""
        id_ = self._ids.get(zone)
        if id_ is not None:
            try:
                return call(id_)
            except (api_errors.NotFound, CloudDnsFault) as exc:
                fault = self.classify(exc)
                if fault is None or fault.missing != "zone":
                    raise
                self._ids.pop(zone, None)
        return call(str(self._look_up(zone)["name"]))

    def _look_up(self, name: str) -> Json:
        """Return what Google tells of a zone."""
        found = self._zones_of(name)
        if not found:
            raise _no_zone(name)
        mine = [zone for zone in found if zone["name"] in {_zone_id(name), _zone_id(name, certain=True)}]
        if len(found) > 1 and len(mine) != 1:
            ids = ", ".join(repr(zone["name"]) for zone in found)
            raise CloudDnsFault(Fault(Conflict, f"several public zones have that name: {ids}; delete all but one"))
        zone = (mine or found)[0]
        self._ids[name] = str(zone["name"])
        return zone

    def _zones_of(self, name: str) -> list[Json]:
        """Return all public zones of a name: Google allows several, with different name servers."""
        found, cursor = list[Json](), None
        while True:
            answer = self._rest.get(self._path(), **_paging(cursor, None), dnsName=f"{name}.")
            found += (zone for zone in answer.get("managedZones", ()) if _is_public(zone))
            cursor = answer.get("nextPageToken")
            if cursor is None:
                return found

    def _create(self, id_: str, name: str) -> None:
        """Make a zone of that id. Google remembers what was done under the id of an operation."""
        body = {"name": id_, "dnsName": f"{name}.", "description": f"{name}, made by shiftable", "visibility": "public"}
        operation, attempts = uuid.uuid4().hex, self.session.attempts()
        try:
            self._rest.call("POST", self._path(), query={"clientOperationId": operation}, body=body, attempts=attempts)
        except api_errors.Conflict:
            if not (attempts.doubtful and self._is_done(id_, operation)):
                raise
        self._ids[name] = id_

    def _is_done(self, id_: str, operation: str) -> bool:
        """Tell whether a zone was made by that operation."""
        try:
            self._rest.get(self._path(id_, "operations", operation))
        except (api_errors.NotFound, api_errors.Forbidden):
            return False
        return True


@attrs.frozen
class _Load:
    """What a change holds."""

    additions: int = 0
    deletions: int = 0
    bytes: int = 0

    @classmethod
    def of(cls, changes: tuple[RecordChange, ...]) -> _Load:
        """Count."""
        return cls(
            sum(change.after is not None for change in changes),
            sum(change.before is not None for change in changes),
            sum(size(change.before) + size(change.after) for change in changes),
        )

    @property
    def fits(self) -> bool:
        """Whether one change may hold it."""
        return max(self.additions, self.deletions) <= 1000 and self.bytes <= _MAX_BYTES

    def __add__(self, other: _Load) -> _Load:
        return _Load(self.additions + other.additions, self.deletions + other.deletions, self.bytes + other.bytes)


def _check_values(record: RecordSet) -> str | None:
    if record.type == "NS" and len(record.rdatas) > _MAX_NS.value:
        return f"there are {len(record.rdatas)} name servers; the limit is {_MAX_NS} ({_MAX_NS.source})"
    if record.type == "NS" and record.name.startswith("*."):
        return "it has no wildcard of type NS (Cloud DNS, error messages: wildcardNotAllowed)"
    if sum(map(len, record.rdatas)) * 4 > _MAX_BYTES and size(record) > _MAX_BYTES:  # a byte is at most \DDD
        return f"there are {size(record):,} bytes of values; one change takes {_MAX_BYTES:,} ({_features.DNS_QUOTAS})"
    return None


def _check_policy(zone: str, record: RecordSet) -> str | None:
    if record.policy is None or record.policy.set_id:
        return "Cloud DNS has one record set of a name and type, and so no set id"
    try:
        fields = policy_fields(record.policy.data)
    except ValueError as exc:
        return f"its policy is none of Cloud DNS: {exc}"
    answered = attrs.evolve(record, rdatas=policy_values(record.type, fields))
    if answered != record:
        return f"the values of this policy are {', '.join(answered.texts) or 'none'}; the record set must have those"
    if record.type == ALIAS and (record.name != f"{zone}." or "rrdatas" not in fields):
        return "an ALIAS stands at the zone's own name and has a target (Cloud DNS, records overview)"
    if record.type in (_features.DNS.types or ()) and "routingPolicy" not in fields:
        return f"the policy of a record set of type {record.type} is a routingPolicy"
    return None


def _zone_id(name: str, *, certain: bool = False) -> str:
    """Return the id of a new zone: ``shop-example``.

    Args:
        certain: with a part that no other name has, as names have where they are long or not plain.
    """
    readable = re.sub(r"[^a-z0-9]+", "-", name).strip("-")
    if not certain and _PLAIN.fullmatch(name) and len(readable) <= _LONGEST_ID:
        return readable
    mark = hashlib.sha256(name.encode()).hexdigest()[:8]
    begun = readable if readable[:1].isalpha() else f"zone-{readable}"
    return f"{begun[: _LONGEST_ID - 9].rstrip('-')}-{mark}"


def _no_zone(name: str) -> CloudDnsFault:
    return CloudDnsFault(Fault(NotFound, f"no public zone of this project has the DNS name {name}.", missing="zone"))


def _paging(cursor: str | None, limit: int | None) -> dict[str, str | int]:
    query: dict[str, str | int] = {"maxResults": min(limit or _PAGE, _PAGE)}
    return query if cursor is None else query | {"pageToken": cursor}


def _is_public(zone: Json) -> bool:
    return str(zone.get("visibility", "public")) == "public"


def _is_of(change: Json, part: str, records: list[RecordSet]) -> bool:
    """Tell whether that is what a change added or deleted."""
    found = {record.key: record for record in map(read, change.get(part, ()))}
    return found == {record.key: record for record in records}
