"""DNS in Azure DNS."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import attrs
from azure.core.exceptions import AzureError

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
from shiftable.errors import Fault, NotFound
from shiftable.features import Limit
from shiftable.paging import Page
from shiftable.parallel import lane, parallel
from shiftable_azure._arm import ArmRefusal
from shiftable_azure._dns_records import TYPES, Mark, properties_of, record_of, relative_name, unfit, wire_name
from shiftable_azure._features import DNS
from shiftable_azure.errors import ArmFailure, classify_arm

if TYPE_CHECKING:
    from shiftable_azure._arm import ArmSession
    from shiftable_azure._pace import Pace

__all__ = ["AzureDnsDriver", "RecordFailure"]

_VERSION = "2023-07-01-preview"  # the one that tells of DS, NAPTR and TLSA; 2018-05-01 would hide them in listings
_PAGE = 100  # what Azure gives at most
_WORKERS = 16
_ATTEMPTS = 4
_DELETION = 600.0  # seconds, of a zone
_LISTS, _GETS, _WRITES = 60, 2000, 200  # a minute and zone: Azure Resource Manager, request limits of Azure DNS
_OWN = frozenset({"NS", "SOA"})
_LABELS = range(2, 35)  # Azure, naming rules for resources: dnsZones
_FAILED = 412
_BROKEN = 500
_MISSING = 404
_ABSENT = "NotFound"  # the record set is; of a missing zone Resource Manager says ResourceNotFound
_ZONE_ABSENT = frozenset({"ParentResourceNotFound", "ResourceNotFound"})
_ORDER = {"delete": 0, "update": 1, "create": 2}

_Counted = Literal["create", "delete", "get", "list", "update"]


class RecordFailure(AzureError):
    """What failed, and on which record set.

    Args:
        left: of the changes that had happened by then, those that could not be taken back.
    """

    def __init__(self, key: RecordKey, cause: Exception, left: Iterable[RecordKey] = ()) -> None:
        super().__init__(f"{key}: {cause}")
        self.key = key
        self.cause = cause
        self.left = tuple(left)


@attrs.define(eq=False)
class AzureDnsDriver(DnsDriver):
    """Public zones of Azure DNS, through Resource Manager.

    Credentials are those of ``AzureProvider``; the zones are those of the settings' ``resource_group``.

    Permissions: the role *DNS Zone Contributor* on the resource group. A role of one's own needs the actions
    ``Microsoft.Network/dnsZones/read``, ``…/write`` and ``…/delete``, ``…/recordsets/read``, of each record type
    ``…/A/read``, ``…/A/write`` and ``…/A/delete`` (``…/SOA/delete`` does not exist), and for the deletion of zones
    ``Microsoft.Network/dnsOperationStatuses/read`` and ``Microsoft.Network/dnsOperationResults/read``. An alias needs
    ``read`` on the resource that it is for. What only reads needs the ``read`` of these.

    * Each record set is one call, under its ETag or the condition that there is none. So a batch is not atomic: up to
      16 calls run at once, the changes of one name in order, deletions first. When one is refused the others are taken
      back, each under the ETag that it made; what somebody else changed meanwhile stays, and the error names it.
    * A call whose answer is lost is repeated; one that fails on its own first success is recognised by what is there.
    * ``before`` decides by its content: a set that has another ETag, and holds what it held, is still the same.
    * Azure counts creates, updates and deletes, 200 of each a minute and zone, and 60 pages of listings; so does the
      session, for all its drivers, and waits.
    * Records that come from a resource of Azure's (alias, traffic manager) have a policy with its id. Metadata of a
      record set are in no field of it; they stay when it is changed, and go along to another zone of Azure DNS.
    * Azure's own name servers stay in the zone's NS, and the host of its SOA; others may be added beside them.
    * Azure deletes a zone with all its records. The driver looks first, and a record set that comes at that very moment
      is lost.
    """

    _session: ArmSession
    _features: DnsFeatures = attrs.field(default=DNS, repr=False)
    _large: set[str] = attrs.field(factory=set, init=False, repr=False)

    @property
    def provider(self) -> str:
        """The provider's name in errors."""
        return "azure"

    @property
    def features(self) -> DnsFeatures:
        """What this driver can do."""
        return self._features

    def classify(self, exc: Exception) -> Fault | None:
        """Say what a native exception means; it names the record set, where it is about one."""
        if not isinstance(exc, RecordFailure):
            return _classified(exc)
        fault = _classified(exc.cause)
        left = f"; not taken back: {', '.join(map(str, exc.left))}" if exc.left else ""
        return fault and attrs.evolve(fault, message=f"{exc.key}: {fault.message}{left}")

    def check_name(self, name: str) -> str | None:
        """Say why Azure could not hold a zone of that name."""
        found = super().check_name(name)
        if found is None:
            parts = labels(name)
            if len(parts) not in _LABELS:
                return f"it has {len(parts)} labels; Azure DNS takes {_LABELS.start} to {_LABELS.stop - 1}"
            if not all(part.replace(b"-", b"").replace(b"_", b"").isalnum() for part in parts):
                return "Azure DNS takes letters, digits, hyphens and underscores"
        return found

    def check_record(self, zone: str, record: RecordSet) -> str | None:
        """Say why Azure could not keep that record set exactly."""
        few = (
            attrs.evolve(record, rdatas=record.rdatas[:1]) if record.type == "TXT" else record
        )  # TXT has its own limit
        return super().check_record(zone, few) or unfit(record)

    # zones

    def create(self, spec: ZoneSpec) -> None:
        """Make a zone with its SOA and NS."""
        try:
            self._call("PUT", self._zone(spec.name), body={"location": "global"}, headers={"If-None-Match": "*"})
        except ArmRefusal as exc:
            if exc.status_code != _FAILED:
                raise
            if not (exc.doubtful and self._is_empty(spec.name)):
                raise ArmFailure("AlreadyExists", "the resource group has such a zone") from exc

    def describe(self, name: str) -> ZoneSpec:
        """Return the zone."""
        self._call("GET", self._zone(name))
        return ZoneSpec(name=name)

    def update(self, current: ZoneSpec, spec: ZoneSpec) -> None:
        """Do nothing: a zone has no settings of ours."""

    def destroy(self, name: str) -> None:
        """Delete a zone that has only its SOA and NS."""
        if not self._is_empty(name):
            raise ArmFailure("Conflict", "record sets remain; delete them first")
        answer = self._session.call("DELETE", self._zone(name), _VERSION)
        self._session.finish(answer, _VERSION, what=f"the deletion of the zone {name}", timeout=_DELETION)

    def names(self, cursor: str | None, limit: int | None) -> Page[str]:
        """Return one page of the resource group's public zones."""
        group = f"{self._session.group}/providers/Microsoft.Network/dnsZones"
        found = self._listed(group, cursor, limit)
        public = (zone for zone in found["value"] if (zone.get("properties") or {}).get("zoneType") != "Private")
        return Page(tuple(str(zone["name"]).lower() for zone in public), found.get("nextLink"))

    def info(self, zone: str) -> ZoneInfo:
        """Return the name servers, as Azure chose them for this zone."""
        found = self._call("GET", self._zone(zone))
        servers = (found.get("properties") or {}).get("nameServers") or ()
        names = tuple(f"{server.lower().removesuffix('.')}." for server in servers)
        return ZoneInfo(name=zone, nameservers=names, id=found.get("id"))

    def max_record_sets(self, zone: str) -> Limit | None:
        """Return the limit of that zone, which Azure raises on request."""
        told = (self._call("GET", self._zone(zone)).get("properties") or {}).get("maxNumberOfRecordSets")
        return self.features.max_record_sets if told is None else Limit(int(told), "the zone's maxNumberOfRecordSets")

    # reading

    def records(self, zone: str, *, name: str | None, cursor: str | None, limit: int | None) -> Page[RecordSet]:
        """Return one page of record sets, in Azure's order; all at once of one name."""
        if name is not None:
            return Page(tuple(self._of_name(zone, name)))
        self._pace(zone, "list").take()
        return self._page(zone, cursor, limit)

    # writing

    def change(self, zone: str, changes: tuple[RecordChange, ...]) -> None:
        """Carry out a batch, a call for each record set; take back what happened if one is refused."""
        for change in changes:
            self._check_own(zone, change)
        done: list[RecordChange] = []

        def step(unit: tuple[RecordChange, ...]) -> None:
            for change in unit:
                try:
                    done.append(self._written(zone, change))
                except AzureError as exc:
                    if not _is_answer(exc):
                        done.append(change)  # perhaps
                    raise RecordFailure(change.key, exc) from exc

        try:
            _for_each(step, list(_units(changes)))
        except Exception as exc:
            left = list(self._taken_back(zone, done))
            if isinstance(exc, RecordFailure):
                exc.left = tuple(key for key in left if key != exc.key)
            raise

    # below: one record set

    def _written(self, zone: str, change: RecordChange) -> RecordChange:
        """Carry out one change, and return it with the marks of what was there and of what is."""
        before, after = change.before, change.after
        if before is not None and Mark.read(before) is None:
            before = self._expected(zone, change.key, before)
        self._pace(zone, change.action).take()
        for _ in range(_ATTEMPTS):
            try:
                return RecordChange(before=before, after=self._sent(zone, change.key, before, after))
            except ArmRefusal as exc:
                if exc.status_code != _FAILED:
                    raise
                found = self._found(zone, change.key)
                if exc.doubtful and found == after:
                    return RecordChange(before=before, after=found)
                if found != before:
                    raise _moved() from exc
                before = found
        raise ArmFailure("Conflict", "others write it all the time; try again")

    def _sent(self, zone: str, key: RecordKey, before: RecordSet | None, after: RecordSet | None) -> RecordSet | None:
        """Send one change under its condition, and return what Azure has now."""
        mark = Mark.read(before)
        condition = {"If-None-Match": "*"} if mark is None else {"If-Match": mark.etag}
        path = self._set(zone, key)
        if after is None:
            answer = self._session.call("DELETE", path, _VERSION, headers=condition)
            if answer.status == 204 and not answer.doubtful:
                raise _moved()
            return None
        carried = mark or Mark.read(after)
        metadata = carried.metadata if carried else {}
        body = {"properties": properties_of(after, metadata)}
        found = self._session.call("PUT", path, _VERSION, body=body, headers=condition).body
        return attrs.evolve(after, revision=str(Mark(str(found.get("etag") or ""), metadata)))

    def _expected(self, zone: str, key: RecordKey, record: RecordSet) -> RecordSet:
        """Return a record set that is known by its content as Azure has it, with its ETag."""
        found = self._found(zone, key)
        if found is None or found != record:
            raise _moved()
        return found

    def _taken_back(self, zone: str, done: list[RecordChange]) -> Iterator[RecordKey]:
        """Undo what was done, the last first; yield what could not be. Once nobody answers, no more is tried."""
        answering = True
        for change in reversed(done):
            try:
                if answering and self._is_taken_back(zone, change):
                    continue
            except AzureError:
                answering = False
            yield change.key

    def _is_taken_back(self, zone: str, change: RecordChange) -> bool:
        """Undo one change, if it has happened and nobody has changed the record set since."""
        try:
            self._written(zone, RecordChange(before=change.after, after=change.before))
        except AzureError as exc:
            if not _is_answer(exc):
                raise
            return self._found(zone, change.key) == change.before
        return True

    def _check_own(self, zone: str, change: RecordChange) -> None:
        """Refuse what Azure does not let anybody change of the zone itself."""
        key, before, after = change.key, change.before, change.after
        if key.name != f"{zone}." or key.type not in _OWN or after is None:
            return
        if key.type == "SOA":
            kept = before is not None and _host(before) == _host(after)
            why = "Azure DNS does not let the primary name server be changed"
        else:
            own = self.info(zone).nameservers
            kept = {wire_name(server) for server in own} <= after.canonical
            why = f"Azure's own name servers stay; add others to {', '.join(own)}"
        if not kept:
            raise RecordFailure(key, ArmFailure("BadRequest", why))

    # what they share

    def _found(self, zone: str, key: RecordKey) -> RecordSet | None:
        """Return one record set as it is now."""
        self._pace(zone, "get").take()
        try:
            return record_of(zone, self._call("GET", self._set(zone, key)))
        except ArmRefusal as exc:
            if exc.status_code == _MISSING and getattr(exc.error, "code", None) == _ABSENT:
                return None
            raise

    def _of_name(self, zone: str, name: str) -> list[RecordSet]:
        """Return all record sets of a name: out of the one page of a small zone, or by a call for each type."""
        if zone not in self._large and self._pace(zone, "list").try_take():
            page = self._page(zone, None, None)
            if page.next is None:
                return [record for record in page.items if record.name == name]
            self._large.add(zone)
        if not self.holds_name(name):
            self._call("GET", self._zone(zone))
            return []
        keys = [RecordKey(name, kind) for kind in TYPES]
        futures = [future for _, future in parallel(lambda key: self._found(zone, key), keys, workers=len(keys) // 2)]
        found = [record for record in (future.result() for future in futures) if record is not None]
        return sorted(found, key=lambda record: record.type)

    def _page(self, zone: str, cursor: str | None, limit: int | None) -> Page[RecordSet]:
        found = self._listed(f"{self._zone(zone)}/recordsets", cursor, limit)
        return Page(tuple(record_of(zone, each) for each in found["value"]), found.get("nextLink"))

    def _listed(self, path: str, cursor: str | None, limit: int | None) -> dict[str, Any]:
        query = {} if limit is None else {"$top": str(min(max(limit, 1), _PAGE))}
        found = dict(self._session.call("GET", cursor or path, _VERSION, query=query).body)
        return {**found, "value": found.get("value") or []}

    def _is_empty(self, zone: str) -> bool:
        """Tell whether a zone has only its own SOA and NS."""
        cursor: str | None = None
        while True:
            page = self.records(zone, name=None, cursor=cursor, limit=None)
            if any(record.name != f"{zone}." or record.type not in _OWN for record in page.items):
                return False
            if (cursor := page.next) is None:
                return True

    def _pace(self, zone: str, counted: _Counted) -> Pace:
        per_minute = {"get": _GETS, "list": _LISTS}.get(counted, _WRITES)
        return self._session.pace(f"{self._zone(zone)} {counted}", per_minute)

    def _zone(self, name: str) -> str:
        return f"{self._session.group}/providers/Microsoft.Network/dnsZones/{quote(name, safe='')}"

    def _set(self, zone: str, key: RecordKey) -> str:
        name = relative_name(key.name, zone)
        if name is None or key.type not in TYPES:
            raise ArmFailure("BadRequest", "Azure DNS cannot hold it")
        return f"{self._zone(zone)}/{key.type}/{quote(name, safe='@*')}"

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:  # noqa: ANN401  as ArmSession.call
        return dict(self._session.call(method, path, _VERSION, **options).body)


def _units(changes: Iterable[RecordChange]) -> Iterator[tuple[RecordChange, ...]]:
    """Yield the changes of each name in the order in which Azure takes them: a CNAME goes before an A comes."""
    ordered = sorted(changes, key=lambda change: (change.key.name, _ORDER[change.action], change.key))
    for _, group in groupby(ordered, key=lambda change: change.key.name):
        yield tuple(group)


def _for_each(step: Callable[[tuple[RecordChange, ...]], None], units: list[tuple[RecordChange, ...]]) -> None:
    """Run a step for each unit, some at once. After a failure nothing begins, and what runs comes to its end."""
    if len(units) == 1:
        step(units[0])
        return
    with lane(step, workers=min(_WORKERS, len(units))) as running:
        for unit in units:
            for _, future in running.put(unit):
                future.result()
        for _, future in running.finish():
            future.result()


def _host(soa: RecordSet) -> bytes:
    """Return the primary name server of an SOA, in wire form and lower case."""
    (rdata,) = soa.canonical
    end = 0
    while rdata[end]:
        end += 1 + rdata[end]
    return rdata[:end]


def _is_answer(exc: AzureError) -> bool:
    """Tell whether an error says what has happened: nothing."""
    return isinstance(exc, ArmFailure) or (isinstance(exc, ArmRefusal) and (exc.status_code or 0) < _BROKEN)


def _moved() -> ArmFailure:
    return ArmFailure("PreconditionFailed", "it is not as it was")


def _classified(exc: Exception) -> Fault | None:
    fault = classify_arm(exc)
    if fault is not None and fault.error is NotFound and fault.code in _ZONE_ABSENT:
        return attrs.evolve(fault, missing="zone")
    return fault
