"""The double's Cloud DNS: zones, their record sets and changes, with the limits and refusals of the service."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import attrs

from shiftable.testing.harness import Request, Response
from shiftable_gcp._calls import Call, Routes, answered
from shiftable_gcp._dns_rules import TYPES, StoredSet, invalid, is_name, quota_exceeded, read_set
from shiftable_gcp._state import Refused

__all__ = ["CloudDns", "StoredChange", "StoredZone"]

PAGE = 1000
_QUOTA = {  # Cloud DNS, quotas and limits
    "itemsPerRoutingPolicy": 100,
    "managedZones": 10_000,
    "nameserversPerDelegation": 8,
    "resourceRecordsPerRrset": 100,
    "rrsetAdditionsPerChange": 1000,
    "rrsetDeletionsPerChange": 1000,
    "rrsetsPerManagedZone": 10_000,
    "totalRrdataSizePerChange": 100_000,
}
_ZONE_ID = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
_SHARDS = "abcde"
_TTL = 21_600
_REASONS = {401: "authError", 403: "forbidden"}
_CODES = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED"}
_SETTABLE = ("cloudLoggingConfig", "description", "dnssecConfig", "labels", "privateVisibilityConfig", "visibility")

T = TypeVar("T")


@attrs.define
class StoredChange:
    """One change, as it was asked for, and how many looks at it are left until it is done."""

    id: int
    started: datetime
    additions: tuple[StoredSet, ...]
    deletions: tuple[StoredSet, ...]
    polls: int

    def told(self) -> dict[str, Any]:
        """Return it as the API tells it."""
        parts = {"additions": self.additions, "deletions": self.deletions}
        return {
            "kind": "dns#change",
            "id": str(self.id),
            "startTime": _time(self.started),
            "status": "pending" if self.polls else "done",
            **{name: [each.told() for each in sets] for name, sets in parts.items() if sets},
        }


@attrs.define
class StoredZone:
    """One zone. ``facts`` are the fields that a caller may set, as the API names them."""

    id: str
    number: int
    dns_name: str
    created: datetime
    shard: str
    facts: dict[str, Any]
    sets: dict[tuple[str, str], StoredSet] = attrs.Factory(dict)
    changes: list[StoredChange] = attrs.Factory(list)
    operations: dict[str, dict[str, Any]] = attrs.Factory(dict)

    @property
    def nameservers(self) -> list[str]:
        """Who answers for it."""
        return [f"ns-cloud-{self.shard}{number}.googledomains.com." for number in range(1, 5)]

    def told(self) -> dict[str, Any]:
        """Return it as the API tells it."""
        return {
            "kind": "dns#managedZone",
            "id": str(self.number),
            "name": self.id,
            "dnsName": self.dns_name,
            "creationTime": _time(self.created),
            "nameServers": self.nameservers,
            "visibility": "public",
            "cloudLoggingConfig": {"kind": "dns#managedZoneCloudLoggingConfig"},
            **self.facts,
        }


_Handler = Callable[[Call], dict[str, Any] | None]


@attrs.define
class CloudDns:
    """Answers the API of Cloud DNS, version 1, one request at a time.

    Attributes:
        zones: by project and id.
        page_size: how much a page of a listing holds at most.
        polls: how often a change is looked at before it is done.
        quota: the limits, by their names in ``projects.get``.
        literal: whether a deletion has to repeat rdata by the letter, not only by what it means.
        indexes: whether refusals name a record set by its index, as they did for years, not by name and type.
    """

    now: Callable[[], datetime]
    page_size: int = PAGE
    polls: int = 1
    literal: bool = False
    indexes: bool = False
    quota: dict[str, int] = attrs.Factory(lambda: dict(_QUOTA))
    zones: dict[tuple[str, str], StoredZone] = attrs.Factory(dict)
    _numbers: int = attrs.field(default=5_123_456_789_012_345_678, init=False)
    _routes: Routes[_Handler] = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        one = "([^/]+)"
        project = f"/dns/v1/projects/{one}"
        zones, zone = f"{project}/managedZones", f"{project}/managedZones/{one}"
        changes, sets, operations = f"{zone}/changes", f"{zone}/rrsets", f"{zone}/operations"
        table: tuple[tuple[str, str, _Handler], ...] = (
            ("GET", project, self._project),
            ("GET", zones, self._list),
            ("POST", zones, self._create),
            ("GET", zone, lambda call: self._found(call).told()),
            ("PATCH", zone, self._patch),
            ("DELETE", zone, self._delete),
            ("GET", f"{operations}/{one}", self._operation),
            ("GET", changes, self._list_changes),
            ("POST", changes, self._change),
            ("GET", f"{changes}/{one}", self._get_change),
            ("GET", sets, self._list_sets),
            ("POST", sets, self._create_set),
            ("GET", f"{sets}/{one}/{one}", lambda call: _set_told(self._set_of(call))),
            ("PATCH", f"{sets}/{one}/{one}", self._patch_set),
            ("DELETE", f"{sets}/{one}/{one}", self._delete_set),
        )
        self._routes = Routes(table)

    def forget(self) -> None:
        """Delete everything, and be as the service is."""
        self.zones.clear()
        self.quota = dict(_QUOTA)
        self.page_size, self.polls, self.literal, self.indexes = PAGE, 1, False, False

    def answer(self, request: Request, refused: Refused | None) -> Response:
        """Execute a request, or refuse it as whoever looked at the credentials says."""
        if refused is not None:
            return _refusal(Refused(refused.status, _REASONS[refused.status], _CODES[refused.status], refused.message))
        found = self._routes.find(request)
        if found is None:
            return _refusal(Refused(501, "notImplemented", "UNIMPLEMENTED", "not in the double"))
        handler, call = found
        try:
            told = handler(call)
        except Refused as exc:
            return _refusal(exc)
        return Response("204 No Content") if told is None else answered(200, told)

    # projects and zones

    def _project(self, call: Call) -> dict[str, Any]:
        number = str(100_000_000_000 + zlib.crc32(call.names[0].encode()))
        quota = {"kind": "dns#quota", **self.quota}
        return {"kind": "dns#project", "id": call.names[0], "number": number, "quota": quota}

    def _list(self, call: Call) -> dict[str, Any]:
        wanted = call.query.get("dnsName")
        if wanted is not None and not wanted.endswith("."):
            raise invalid("parameters.dnsName", wanted)
        found = [
            zone
            for (project, _), zone in self.zones.items()
            if project == call.names[0] and wanted in {None, zone.dns_name}
        ]
        rows, token = self._paged(call, sorted(found, key=lambda zone: zone.id), lambda zone: [zone.id])
        return _page("managedZones", "dns#managedZonesListResponse", [zone.told() for zone in rows], token)

    def _create(self, call: Call) -> dict[str, Any]:
        body, project = call.body, call.names[0]
        for name in ("name", "dnsName", "description"):
            if not isinstance(body.get(name), str) or not body[name]:
                raise _missing(f"entity.managedZone.{name}")
        id_, dns_name = body["name"], body["dnsName"].lower()
        if not _ZONE_ID.fullmatch(id_):
            raise invalid("entity.managedZone.name", id_, "invalidFieldValue")
        if not is_name(dns_name) or dns_name.startswith("*"):
            raise invalid("entity.managedZone.dnsName", dns_name)
        if len(body["description"]) > 1024:
            raise invalid("entity.managedZone.description", body["description"])
        if (project, id_) in self.zones:
            raise _exists("entity.managedZone", id_)
        if sum(owner == project for owner, _ in self.zones) >= self.quota["managedZones"]:
            raise quota_exceeded("managedZones", self.quota["managedZones"])
        taken = {zone.shard for zone in self.zones.values() if zone.dns_name == dns_name}
        shards = [shard for shard in _SHARDS if shard not in taken]
        if dns_name.count(".") < 2 or not shards:
            message = f"The '{dns_name}' managed zone is not available to be created."
            raise Refused(400, "managedZoneDnsNameNotAvailable", "FAILED_PRECONDITION", message)
        self._numbers += 1
        facts = {name: body[name] for name in _SETTABLE if name in body}
        made = StoredZone(id_, self._numbers, dns_name, self.now(), shards[0], facts)
        soa = f"{made.nameservers[0]} cloud-dns-hostmaster.google.com. 1 21600 3600 259200 300"
        own = tuple(
            read_set({"name": dns_name, "type": kind, "ttl": _TTL, "rrdatas": texts}, dns_name, "", self.quota)
            for kind, texts in (("NS", made.nameservers), ("SOA", [soa]))
        )
        made.sets = {each.key: each for each in own}
        made.changes.append(StoredChange(0, self.now(), own, (), 0))
        self.zones[project, id_] = made
        self._note(made, call, "create")
        return made.told()

    def _patch(self, call: Call) -> dict[str, Any]:
        zone, body = self._found(call), call.body
        for name, kept in (("name", zone.id), ("dnsName", zone.dns_name)):
            if body.get(name, kept) != kept:
                raise invalid(f"entity.managedZone.{name}", body[name])
        zone.facts |= {name: body[name] for name in _SETTABLE if name in body}
        return self._note(zone, call, "update")

    def _delete(self, call: Call) -> None:
        zone = self._found(call)
        if any(not _is_own(key, zone) for key in zone.sets):
            message = (
                f"The resource named '{zone.id}' cannot be deleted because it contains one or more 'resource records'."
            )
            raise Refused(400, "containerNotEmpty", "FAILED_PRECONDITION", message)
        del self.zones[call.names[0], zone.id]

    def _operation(self, call: Call) -> dict[str, Any]:
        found = self._found(call).operations.get(call.names[2])
        if found is None:
            raise _absent("parameters.operation", call.names[2])
        return found

    # changes

    def _change(self, call: Call) -> dict[str, Any]:
        zone, body = self._found(call), call.body
        additions, deletions = body.get("additions") or [], body.get("deletions") or []
        if not additions and not deletions:
            raise _missing("entity.change")
        for name, sent in (("rrsetAdditionsPerChange", additions), ("rrsetDeletionsPerChange", deletions)):
            if len(sent) > self.quota[name]:
                raise quota_exceeded(name, self.quota[name])
        adding = [(self._place("additions", number, sent), sent) for number, sent in enumerate(additions)]
        deleting = [(self._place("deletions", number, sent), sent) for number, sent in enumerate(deletions)]
        made = self._applied(
            zone,
            [(place, read_set(sent, zone.dns_name, place, self.quota)) for place, sent in adding],
            [(place, read_set(sent, zone.dns_name, place, self.quota)) for place, sent in deleting],
        )
        return made.told()

    def _applied(
        self, zone: StoredZone, additions: list[tuple[str, StoredSet]], deletions: list[tuple[str, StoredSet]]
    ) -> StoredChange:
        """Carry out all of a change, or refuse all of it."""
        size = sum(each.size for _, each in (*additions, *deletions))
        if size > self.quota["totalRrdataSizePerChange"]:
            raise quota_exceeded("totalRrdataSizePerChange", self.quota["totalRrdataSizePerChange"])
        sets = dict(zone.sets)
        for place, each in deletions:
            found = sets.get(each.key)
            if found is None:
                raise _absent(place, _label(each))
            if not found.matches(each, literally=self.literal):
                raise Refused(412, "conditionNotMet", "FAILED_PRECONDITION", f"Precondition not met for '{place}'")
            del sets[each.key]
        for place, each in additions:
            if each.key in sets:
                raise _exists(place, _label(each))
            sets[each.key] = each
        for place, each in (*additions, *deletions):
            _check_name(zone, sets, place, each)
        limit = self.quota["rrsetsPerManagedZone"]
        if len(sets) > max(limit, len(zone.sets)):
            raise quota_exceeded("rrsetsPerManagedZone", limit)
        zone.sets = sets
        made = StoredChange(
            len(zone.changes),
            self.now(),
            tuple(each for _, each in additions),
            tuple(each for _, each in deletions),
            self.polls,
        )
        zone.changes.append(made)
        return made

    def _get_change(self, call: Call) -> dict[str, Any]:
        zone, id_ = self._found(call), call.names[2]
        found = next((change for change in zone.changes if str(change.id) == id_), None)
        if found is None:
            raise _absent("parameters.changeId", id_)
        found.polls = max(0, found.polls - 1)
        return found.told()

    def _list_changes(self, call: Call) -> dict[str, Any]:
        order = call.query.get("sortOrder", "ascending")
        if order not in {"ascending", "descending"}:
            raise invalid("parameters.sortOrder", order)
        rows, sign = list(self._found(call).changes), 1
        if order == "descending":
            rows, sign = rows[::-1], -1
        shown, token = self._paged(call, rows, lambda change: [sign * change.id])
        return _page("changes", "dns#changesListResponse", [change.told() for change in shown], token)

    # record sets, one at a time

    def _list_sets(self, call: Call) -> dict[str, Any]:
        zone, name, kind = self._found(call), call.query.get("name"), call.query.get("type")
        if name is not None and not name.endswith("."):
            raise invalid("parameters.name", name)
        if kind is not None and name is None:
            raise invalid("parameters.name", "")
        found = [each for each in zone.sets.values() if name in {None, each.name} and kind in {None, each.type}]
        rows, token = self._paged(call, sorted(found, key=_set_order), _set_order)
        return _page("rrsets", "dns#resourceRecordSetsListResponse", [_set_told(each) for each in rows], token)

    def _create_set(self, call: Call) -> dict[str, Any]:
        zone = self._found(call)
        made = read_set(call.body, zone.dns_name, "entity.rrset", self.quota)
        self._applied(zone, [("entity.rrset", made)], [])
        return _set_told(made)

    def _patch_set(self, call: Call) -> dict[str, Any]:
        zone, found, body = self._found(call), self._set_of(call), call.body
        kept = found.told()
        if "rrdatas" in body or "routingPolicy" in body:
            kept = {name: value for name, value in kept.items() if name not in {"rrdatas", "routingPolicy"}}
        made = read_set(kept | body, zone.dns_name, "entity.rrset", self.quota)
        self._applied(zone, [("entity.rrset", made)], [("entity.rrset", found)])
        return _set_told(made)

    def _delete_set(self, call: Call) -> dict[str, Any]:
        self._applied(self._found(call), [], [("parameters.rrset", self._set_of(call))])
        return {}

    # what they share

    def _found(self, call: Call) -> StoredZone:
        found = self.zones.get((call.names[0], call.names[1]))
        if found is None:
            raise _absent("parameters.managedZone", call.names[1])
        return found

    def _set_of(self, call: Call) -> StoredSet:
        name, kind = call.names[2], call.names[3]
        found = self._found(call).sets.get((name, kind))
        if found is None:
            raise _absent("parameters.rrset", f"{name} ({kind})")
        return found

    def _place(self, part: str, number: int, sent: object) -> str:
        """Say where in a change something stands."""
        if self.indexes or not isinstance(sent, dict):
            return f"entity.change.{part}[{number}]"
        return f"entity.change.{part}[{sent.get('name', '')}][{sent.get('type', '')}]"

    def _note(self, zone: StoredZone, call: Call, kind: str) -> dict[str, Any]:
        """Remember what was done, by the name that the caller gave it."""
        id_ = call.query.get("clientOperationId") or f"operation-{len(zone.operations)}"
        if id_ in zone.operations:
            raise _exists("parameters.clientOperationId", id_)
        zone.operations[id_] = {
            "kind": "dns#operation",
            "id": id_,
            "startTime": _time(self.now()),
            "status": "done",
            "type": kind,
            "user": "double@example.com",
        }
        return zone.operations[id_]

    def _paged(self, call: Call, rows: list[T], order: Callable[[T], list[Any]]) -> tuple[list[T], str | None]:
        """Cut one page. The token names the last item that was shown, so that a deletion in between loses none."""
        stated = call.query.get("maxResults", str(PAGE))
        if not stated.isdigit() or int(stated) < 1:
            raise invalid("parameters.maxResults", stated)
        size, token = min(int(stated), self.page_size), call.query.get("pageToken")
        if token:
            try:
                after = json.loads(base64.urlsafe_b64decode(token))
            except ValueError as exc:
                raise invalid("parameters.pageToken", token) from exc
            rows = [row for row in rows if order(row) > after]
        shown = rows[:size]
        if len(rows) <= size:
            return shown, None
        return shown, base64.urlsafe_b64encode(json.dumps(order(shown[-1])).encode()).decode()


def _check_name(zone: StoredZone, sets: Mapping[tuple[str, str], StoredSet], place: str, each: StoredSet) -> None:
    """Refuse what cannot stand together at one name when all is done."""
    if _is_own(each.key, zone) and each.key not in sets:
        message = f"The resource record set '{place}' is invalid because a zone must contain exactly one resource"
        raise Refused(
            400, "invalidZoneApex", "FAILED_PRECONDITION", f"{message} record set of type '{each.type}' at the apex."
        )
    beside = sum((each.name, kind) in sets for kind in TYPES)
    if (each.name, "CNAME") in sets and beside > 1:
        message = (
            f"The resource record set '{place}' is invalid because the DNS name '{each.name}' may have either one"
            " CNAME resource record set or resource record sets of other types, but not both."
        )
        raise Refused(400, "cnameResourceRecordSetConflict", "FAILED_PRECONDITION", message)


def _is_own(key: tuple[str, str], zone: StoredZone) -> bool:
    return key in {(zone.dns_name, "NS"), (zone.dns_name, "SOA")}


def _label(each: StoredSet) -> str:
    return f"{each.name} ({each.type})"


def _set_order(each: StoredSet) -> list[Any]:
    """Sort as DNS does, by labels from the right."""
    return [each.name.split(".")[::-1], each.type]


def _set_told(each: StoredSet) -> dict[str, Any]:
    return {"kind": "dns#resourceRecordSet", **each.told()}


def _page(name: str, kind: str, rows: Iterable[Any], token: str | None) -> dict[str, Any]:
    found = list(rows)
    told: dict[str, Any] = {"kind": kind, name: found} if found else {"kind": kind}
    return told | {"nextPageToken": token} if token else told


def _missing(place: str) -> Refused:
    return Refused(400, "required", "INVALID_ARGUMENT", f"The '{place}' parameter is required but was missing.")


def _exists(place: str, name: str) -> Refused:
    return Refused(409, "alreadyExists", "ALREADY_EXISTS", f"The resource '{place}' named '{name}' already exists")


def _absent(place: str, name: str) -> Refused:
    return Refused(404, "notFound", "NOT_FOUND", f"The '{place}' resource named '{name}' does not exist.")


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _refusal(refused: Refused) -> Response:
    detail = {"message": refused.message, "domain": "global", "reason": refused.reason or "badRequest"}
    error = {"code": refused.status, "message": refused.message, "errors": [detail], "status": refused.code}
    return answered(refused.status, {"error": error})
