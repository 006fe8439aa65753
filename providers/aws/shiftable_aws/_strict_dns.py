"""What Amazon Route 53 does and moto 5.2 does not: zones and their record sets, answered from a state of its own.

moto looks at no value, takes a CNAME beside anything, creates a record set twice, deletes by a journal, and leaves
half of a refused batch behind. So zones, record sets and changes are answered here. moto's own zones are kept in step,
and all else (health checks, tags, VPCs) stays moto's. What comes and goes is held to botocore's model of the service.
"""

from __future__ import annotations

import functools
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

import attrs
from moto.backends import get_backend
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.route53.models import FakeZone

from shiftable.testing.harness import Clock, Headers, Request, Response
from shiftable_aws import _strict_dns_model as model
from shiftable_aws._strict_dns_rules import MAX_RECORD_SETS, Key, Record, Zone, canonical, changed, key_of, order_of
from shiftable_aws._strict_refused import Refused

__all__ = ["StrictDns"]

_ZONES_PAGE = 100  # Route 53 API reference, ListHostedZones and ListHostedZonesByName
_RECORDS_PAGE = 300  # the same, ListResourceRecordSets

Arguments = Mapping[str, Any]
Answering = Callable[["StrictDns", Arguments], dict[str, Any]]


@attrs.define
class _Change:
    """A change on its way to the name servers."""

    id: str
    submitted: str
    polls: int

    def info(self) -> dict[str, Any]:
        status = "PENDING" if self.polls > 0 else "INSYNC"
        return {"Id": f"/change/{self.id}", "Status": status, "SubmittedAt": self.submitted}


@attrs.define
class _Held:
    """A zone's records, and their order in listings."""

    name: str
    records: dict[Key, Record]
    order: list[Key] = attrs.field(factory=list)

    def replace(self, records: dict[Key, Record]) -> None:
        self.records = records
        self.order = sorted(records, key=order_of)


class StrictDns:
    """Stands in front of moto and answers for Route 53. Not for use from several threads at once.

    Attributes:
        polls: how often ``GetChange`` says PENDING before it says INSYNC.
        protected: names and types that a protection locks, as Route 53 writes names.
        record_sets: of a zone, at most; AWS raises that on request.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._zones: dict[str, _Held] = {}
        self._changes: dict[str, _Change] = {}
        self._references = set[str]()
        self.polls = 0
        self.record_sets = MAX_RECORD_SETS
        self.protected = set[tuple[str, str]]()

    def forget(self) -> None:
        """Forget all zones and changes."""
        self._zones.clear()
        self._changes.clear()
        self._references.clear()
        self.protected.clear()
        self.polls = 0
        self.record_sets = MAX_RECORD_SETS

    def records(self, zone_id: str) -> dict[Key, Record]:
        """Return what a zone holds, to look behind the protocol."""
        return dict(self._held(zone_id).records)

    def put(self, zone_id: str, record: Record) -> None:
        """Put a record set into a zone past the protocol, its names as Route 53 keeps them."""
        held = self._held(zone_id)
        held.replace(held.records | {key_of(record): record})

    @staticmethod
    def operation(request: Request) -> str:
        """Name the operation of a request; empty if it is none."""
        return _matched(request)[0]

    def answer(self, request: Request, forward: Callable[[], Response]) -> Response:
        """Check a request against the model and answer it; leave to moto what is not of zones and records."""
        operation, bound = _matched(request)
        answering = _ANSWERS.get(operation)
        if answering is None:
            return forward()
        try:
            query = dict(parse_qsl(request.query, keep_blank_values=True))
            arguments = model.arguments(operation, bound, query, request.body)
            answer = answering(self, arguments)
        except Refused as exc:
            return _error(exc.code, exc.message, exc.status)
        headers = Headers({"Content-Type": "text/xml", "x-amzn-RequestId": "double-request"})
        if "Location" in answer:
            headers["Location"] = answer["Location"]
        return Response("201 Created" if "Location" in answer else "200 OK", headers, model.document(operation, answer))

    # zones

    def create(self, arguments: Arguments) -> dict[str, Any]:
        """CreateHostedZone; a name may be taken many times, a caller reference once."""
        name = canonical(arguments["Name"], "InvalidDomainName")
        reference = arguments["CallerReference"]
        if reference in self._references:
            text = "A hosted zone has already been created with the specified caller reference."
            raise Refused("HostedZoneAlreadyExists", text, 409)
        if name.count(".") < 2:
            raise Refused("InvalidDomainName", f"{name} is a top-level domain and can't be hosted")
        config = arguments.get("HostedZoneConfig") or {}
        vpc = arguments.get("VPC") or {}
        if config.get("PrivateZone") and not vpc:
            raise Refused("InvalidInput", "When you're creating a private hosted zone, you must specify a VPC.")
        zone = self._backend.create_hosted_zone(
            name,
            private_zone=bool(vpc),
            caller_reference=reference,
            vpcid=vpc.get("VPCId"),
            vpcregion=vpc.get("VPCRegion"),
            comment=config.get("Comment"),
            delegation_set_id=arguments.get("DelegationSetId"),
        )
        self._references.add(reference)
        held = self._zones[zone.resource_id] = _Held(name, {})
        held.replace(dict(_own(name, zone.delegation_set.name_servers)))
        self._mirror(zone, held)
        location = f"https://route53.amazonaws.com/2013-04-01{zone.id}"
        servers = {"NameServers": list(zone.delegation_set.name_servers)}  # the model says: of private zones too
        answer = {"HostedZone": self._hosted(zone), "DelegationSet": servers, "ChangeInfo": self._pending().info()}
        return answer | ({"VPC": vpc} if vpc else {}) | {"Location": location}

    def get(self, arguments: Arguments) -> dict[str, Any]:
        """GetHostedZone."""
        return self._described(self._zone(arguments["Id"]))

    def limit(self, arguments: Arguments) -> dict[str, Any]:
        """GetHostedZoneLimit, of record sets; moto has no such operation."""
        kind, held = arguments["Type"], self._held(self._zone(arguments["HostedZoneId"]).resource_id)
        if kind != "MAX_RRSETS_BY_ZONE":
            raise Refused("InvalidInput", f"The double has no limit {kind}.")
        return {"Limit": {"Type": kind, "Value": self.record_sets}, "Count": len(held.records)}

    def delete(self, arguments: Arguments) -> dict[str, Any]:
        """DeleteHostedZone; moto would also delete what is delegated."""
        zone = self._zone(arguments["Id"])
        held = self._held(zone.resource_id)
        if any(key[0] != held.name or key[1] not in {"NS", "SOA"} for key in held.records):
            text = "The specified hosted zone contains non-required resource record sets and so cannot be deleted."
            raise Refused("HostedZoneNotEmpty", text)
        del self._backend.zones[zone.resource_id]
        del self._zones[zone.resource_id]
        return {"ChangeInfo": self._pending().info()}

    def list(self, arguments: Arguments) -> dict[str, Any]:
        """ListHostedZones, in no order that means anything."""
        size, marker = _size(arguments, _ZONES_PAGE), arguments.get("Marker", "")
        zones = sorted(self._backend.zones.values(), key=lambda zone: str(zone.resource_id))
        left = [zone for zone in zones if zone.resource_id >= marker]
        answer: dict[str, Any] = {
            "HostedZones": [self._hosted(zone) for zone in left[:size]],
            "IsTruncated": len(left) > size,
            "MaxItems": str(size),
            "Marker": marker,
        }
        return answer | ({"NextMarker": left[size].resource_id} if len(left) > size else {})

    def list_by_name(self, arguments: Arguments) -> dict[str, Any]:
        """ListHostedZonesByName: from a name on, labels reversed; zones of one name by their ids."""
        size, name = _size(arguments, _ZONES_PAGE), arguments.get("DNSName")
        zones = sorted(self._backend.zones.values(), key=_zone_order)
        if name:
            start = (_reversed(canonical(name, "InvalidDomainName")), arguments.get("HostedZoneId", ""))
            zones = [zone for zone in zones if _zone_order(zone) >= start]
        answer: dict[str, Any] = {
            "HostedZones": [self._hosted(zone) for zone in zones[:size]],
            "IsTruncated": len(zones) > size,
            "MaxItems": str(size),
        }
        if name:
            answer["DNSName"] = name
        if len(zones) > size:
            answer |= {"NextDNSName": zones[size].name, "NextHostedZoneId": zones[size].resource_id}
        return answer

    # record sets

    def list_records(self, arguments: Arguments) -> dict[str, Any]:
        """ListResourceRecordSets: by name with the labels reversed, then type, then set identifier."""
        held, size = self._held(arguments["HostedZoneId"]), _size(arguments, _RECORDS_PAGE)
        name, kind = arguments.get("StartRecordName"), arguments.get("StartRecordType", "")
        identifier = arguments.get("StartRecordIdentifier", "")
        if (kind and not name) or (identifier and not kind):
            raise Refused("InvalidInput", "The input is not valid")
        keys = held.order
        if name:
            start = order_of((canonical(name, "InvalidInput"), kind, identifier))
            keys = [key for key in keys if order_of(key) >= start]
        answer: dict[str, Any] = {
            "ResourceRecordSets": [held.records[key] for key in keys[:size]],
            "IsTruncated": len(keys) > size,
            "MaxItems": str(size),
        }
        if len(keys) > size:
            following = keys[size]
            answer |= {"NextRecordName": following[0], "NextRecordType": following[1]}
            answer |= {"NextRecordIdentifier": following[2]} if following[2] else {}
        return answer

    def change(self, arguments: Arguments) -> dict[str, Any]:
        """ChangeResourceRecordSets: all of a batch, or nothing."""
        zone = self._zone(arguments["HostedZoneId"])
        held = self._held(zone.resource_id)
        for wanted in arguments["ChangeBatch"]["Changes"]:
            check = wanted["ResourceRecordSet"].get("HealthCheckId")
            if check and check not in self._backend.health_checks:
                raise Refused("NoSuchHealthCheck", f"A health check with id {check} does not exist.", 404)
        state = Zone(zone.resource_id, held.name, held.records, self.protected, self.record_sets)
        held.replace(changed(state, arguments["ChangeBatch"]["Changes"]))
        self._mirror(zone, held)
        return {"ChangeInfo": self._pending().info()}

    def get_change(self, arguments: Arguments) -> dict[str, Any]:
        """GetChange: PENDING as often as ``polls`` says, then INSYNC."""
        change = self._changes.get(arguments["Id"].removeprefix("/change/"))
        if change is None:
            raise Refused("NoSuchChange", f"A change with id {arguments['Id']} does not exist.", 404)
        info = change.info()
        change.polls -= 1
        return {"ChangeInfo": info}

    # the state

    @property
    def _backend(self) -> Any:  # noqa: ANN401  moto's names of regions are partitions here
        return get_backend("route53")[DEFAULT_ACCOUNT_ID]["aws"]

    def _zone(self, zone_id: str) -> FakeZone:
        zone = self._backend.zones.get(zone_id.removeprefix("/hostedzone/"))
        if zone is None:
            raise Refused("NoSuchHostedZone", f"No hosted zone found with ID: {zone_id}", 404)
        found: FakeZone = zone
        return found

    def _held(self, zone_id: str) -> _Held:
        zone = self._zone(zone_id)
        held = self._zones.get(zone.resource_id)
        if held is None:  # CloudFormation made it, past this class
            held = self._zones[zone.resource_id] = _Held(canonical(zone.name, "InvalidDomainName"), {})
            servers = zone.delegation_set.name_servers if zone.delegation_set else []
            held.replace(dict(_own(held.name, servers)))
        return held

    def _pending(self) -> _Change:
        moment = self._clock.now().strftime("%Y-%m-%dT%H:%M:%S.000Z")
        change = _Change(f"C{secrets.token_hex(9).upper()}", moment, self.polls)
        self._changes[change.id] = change
        return attrs.evolve(change, polls=max(1, self.polls))  # the answer itself always says PENDING

    def _described(self, zone: FakeZone) -> dict[str, Any]:
        described: dict[str, Any] = {"HostedZone": self._hosted(zone)}
        if zone.private_zone:
            described["VPCs"] = [{"VPCId": vpc["vpc_id"], "VPCRegion": vpc["vpc_region"]} for vpc in zone.vpcs]
        elif zone.delegation_set is not None:
            described["DelegationSet"] = {"NameServers": list(zone.delegation_set.name_servers)}
        return described

    def _hosted(self, zone: FakeZone) -> dict[str, Any]:
        config = {"PrivateZone": zone.private_zone} | ({"Comment": zone.comment} if zone.comment else {})
        return {
            "Id": zone.id,
            "Name": zone.name,
            "CallerReference": zone.caller_reference,
            "Config": config,
            "ResourceRecordSetCount": len(self._held(zone.resource_id).records),
        }

    @staticmethod
    def _mirror(zone: FakeZone, held: _Held) -> None:
        """Have moto's own zone show the same to what else reads it."""
        zone.rrsets = []
        for record in held.records.values():
            zone.add_rrset(
                record | {"ResourceRecords": [entry["Value"] for entry in record.get("ResourceRecords", ())]}
            )


_ANSWERS: Mapping[str, Answering] = {
    "CreateHostedZone": StrictDns.create,
    "GetHostedZone": StrictDns.get,
    "GetHostedZoneLimit": StrictDns.limit,
    "DeleteHostedZone": StrictDns.delete,
    "ListHostedZones": StrictDns.list,
    "ListHostedZonesByName": StrictDns.list_by_name,
    "ListResourceRecordSets": StrictDns.list_records,
    "ChangeResourceRecordSets": StrictDns.change,
    "GetChange": StrictDns.get_change,
}


def _own(name: str, servers: Iterable[str]) -> Iterator[tuple[Key, Record]]:
    """Yield the SOA and NS that a new zone has, as Route 53 writes them."""
    first, *others = [f"{server}." for server in servers]
    soa = f"{first} awsdns-hostmaster.amazon.com. 1 7200 900 1209600 86400"
    for kind, ttl, values in (("NS", 172_800, [first, *others]), ("SOA", 900, [soa])):
        record = {"Name": name, "Type": kind, "TTL": ttl, "ResourceRecords": [{"Value": value} for value in values]}
        yield key_of(record), record


def _size(arguments: Arguments, most: int) -> int:
    text = arguments.get("MaxItems", str(most))
    if not text.isdecimal() or int(text) < 1:
        raise Refused("InvalidInput", f"Value '{text}' at 'maxItems' is not a positive number")
    return min(int(text), most)


def _reversed(name: str) -> str:
    return order_of((name, "", ""))[0]


def _zone_order(zone: FakeZone) -> tuple[str, str]:
    return _reversed(zone.name), zone.resource_id


@functools.cache
def _paths() -> tuple[tuple[str, str, re.Pattern[str]], ...]:
    """Return method, operation and a pattern for the path of every operation that the model knows."""
    found = []
    for name, http in model.operations():
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(http["requestUri"].partition("?")[0]))
        found.append((http["method"], name, re.compile(pattern.removesuffix("/") + "/?")))
    return tuple(found)


def _matched(request: Request) -> tuple[str, dict[str, str]]:
    """Return the operation of a request and what stands in its path."""
    path = request.target.partition("?")[0]
    for method, name, pattern in _paths():
        match = pattern.fullmatch(path)
        if match is not None and method == request.method:
            return name, {place: unquote(text) for place, text in match.groupdict().items()}
    return "", {}


def _error(code: str, message: str, status: int) -> Response:
    headers = Headers({"Content-Type": "text/xml", "x-amzn-RequestId": "double-request"})
    line = {400: "400 Bad Request", 404: "404 Not Found", 409: "409 Conflict"}[status]
    return Response(line, headers, model.error(code, message))
