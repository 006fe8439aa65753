"""The public zones of Azure DNS in memory: record sets with ETags, what is refused, and how often one may ask."""

from __future__ import annotations

import ipaddress
import math
import re
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

import attrs

from shiftable.testing.harness import Clock, Response
from shiftable_azure._double_arm import HOST, ArmAsked, ArmRefusalAnswer, Operations, arm_json

__all__ = ["LIMITS", "DnsService", "StoredSet", "StoredZone"]

LIMITS: Mapping[str, int] = {"create": 200, "update": 200, "delete": 200, "get": 2000, "list": 60}
"""Calls a minute and zone."""

_PREVIEW = "2023-07-01-preview"
_FIELDS = {
    "A": "ARecords", "AAAA": "AAAARecords", "CAA": "caaRecords", "CNAME": "CNAMERecord", "DS": "DSRecords",
    "MX": "MXRecords", "NAPTR": "NAPTRRecords", "NS": "NSRecords", "PTR": "PTRRecords", "SOA": "SOARecord",
    "SRV": "SRVRecords", "TLSA": "TLSARecords", "TXT": "TXTRecords",
}  # fmt: skip
_LATER = {"DS", "NAPTR", "TLSA"}
_SIGNED = {"DS", "TLSA"}
_ALIASES = {"A", "AAAA", "CNAME"}
_SETS = 10_000
_VALUES = 20
_TXT_VALUES = 400
_TXT_CHARACTERS = 4096
_LABEL = r"[A-Za-z0-9_-]{1,63}"
_OWNER = re.compile(rf"@|(?:\*|{_LABEL})(?:\.{_LABEL})*")
_TARGET = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*\.?")
_ZONE = re.compile(rf"{_LABEL}(?:\.{_LABEL}){{1,33}}")
_SOA = {"email": "azuredns-hostmaster.microsoft.com", "serialNumber": 1, "refreshTime": 3600, "retryTime": 300,
        "expireTime": 2_419_200, "minimumTTL": 300}  # fmt: skip


@attrs.define
class StoredSet:
    """One record set: ``properties`` as the service keeps them, but for what it adds to each answer."""

    name: str
    type: str
    properties: dict[str, Any]
    etag: str = attrs.field(factory=lambda: str(uuid.uuid4()))


@attrs.define
class StoredZone:
    """One zone; its record sets by name in lower case and type."""

    name: str
    group: str
    nameservers: tuple[str, ...]
    signed: bool = False
    zone_type: str = "Public"
    tags: dict[str, str] = attrs.field(factory=dict)
    etag: str = attrs.field(factory=lambda: str(uuid.uuid4()))
    sets: dict[tuple[str, str], StoredSet] = attrs.field(factory=dict)


class DnsService:
    """Executes requests, one at a time.

    What the service answers where its quota of record sets is reached is stated nowhere, and an assumption here.

    Attributes:
        zones: by resource group and name, both in lower case.
        page_size: the most that a listing has in one page.
        sets: how many record sets a zone takes.
        signs: new zones are signed.
    """

    namespace = "Microsoft.Network"
    versions = frozenset({"2018-05-01", _PREVIEW})

    def __init__(self, clock: Clock, operations: Operations) -> None:
        self._clock = clock
        self._operations = operations
        self.zones: dict[tuple[str, str], StoredZone] = {}
        self._calls: dict[tuple[int, str], deque[datetime]] = {}
        self.reset()

    def reset(self) -> None:
        """Forget all zones; be an ordinary service again."""
        self.zones.clear()
        self._calls.clear()
        self.page_size = 100
        self.sets = _SETS
        self.signs = False

    def zone(self, name: str) -> StoredZone:
        """Return the zone of that name, in whatever resource group it is."""
        return next(zone for (_, key), zone in self.zones.items() if key == name)

    def put_raw(self, zone: str, name: str, type: str, **properties: Any) -> StoredSet:  # noqa: ANN401  JSON
        """Store a record set past the protocol, as another tool would have left it."""
        made = StoredSet(name, type, {"TTL": 3600, **properties})
        self.zone(zone).sets[name.lower(), type.upper()] = made
        return made

    def operation(self, method: str, parts: tuple[str, ...]) -> tuple[str, str]:
        """Name an operation and the action that it takes."""
        verb = {"GET": "read", "DELETE": "delete"}.get(method, "write")
        name = {"GET": "Get", "DELETE": "Delete", "PUT": "CreateOrUpdate", "PATCH": "Update"}.get(method, "")
        base = f"{self.namespace}/dnsZones"
        if not parts or parts[0].lower() != "dnszones":
            return "", ""
        if len(parts) == 1:
            return "Zones_List", f"{base}/read"
        if len(parts) == 2:
            return f"Zones_{name}", f"{base}/{verb}"
        if parts[2].lower() == "dnssecconfigs":
            return f"DnssecConfigs_{name}", f"{base}/dnssecConfigs/{verb}"
        if len(parts) == 3:
            return "RecordSets_List", f"{base}/{'recordsets' if _is_all(parts[2]) else parts[2].upper()}/read"
        return f"RecordSets_{name}", f"{base}/{parts[2].upper()}/{verb}"

    def execute(self, asked: ArmAsked) -> Response:
        """Answer a request."""
        method, parts = asked.method, asked.parts
        if not parts or parts[0].lower() != "dnszones" or len(parts) > 4:
            raise ArmRefusalAnswer(404, "InvalidResourceType", "The resource type could not be found.")
        if len(parts) == 1:
            run: Callable[[ArmAsked], Response] | None = {"GET": self._list_zones}.get(method)
        elif len(parts) == 2:
            zones = {"PUT": self._put_zone, "GET": self._get_zone, "DELETE": self._delete_zone}
            run = zones.get(method)
        elif len(parts) == 3:
            run = {"GET": self._list_sets}.get(method)
        elif parts[2].lower() == "dnssecconfigs":
            run = {"PUT": self._sign, "DELETE": self._sign}.get(method)
        else:
            sets = {"PUT": self._put_set, "PATCH": self._put_set, "GET": self._get_set, "DELETE": self._delete_set}
            run = sets.get(method)
        if run is None or (asked.group is None and len(parts) > 1):
            raise ArmRefusalAnswer(405, "MethodNotAllowed", "The double has no such operation.")
        return run(asked)

    # zones

    def _list_zones(self, asked: ArmAsked) -> Response:
        here = [zone for (group, _), zone in sorted(self.zones.items()) if asked.group in (None, zone.group) or
                (asked.group or "").lower() == group]  # fmt: skip
        return self._page(asked, here, lambda zone: zone.name, lambda zone: self._zone_json(asked, zone))

    def _put_zone(self, asked: ArmAsked) -> Response:
        name, content = asked.parts[1], asked.content
        found = self.zones.get(self._key(asked))
        _conditions(asked, None if found is None else found.etag)
        if not _ZONE.fullmatch(name):
            raise _bad(f"The zone name '{name}' is invalid.")
        if content.get("location") != "global":
            message = f"The provided location '{content.get('location')}' is not available for resource type"
            raise ArmRefusalAnswer(
                400, "LocationNotAvailableForResourceType", f"{message} 'Microsoft.Network/dnszones'."
            )
        if found is not None:
            found.tags, found.etag = dict(content.get("tags") or {}), str(uuid.uuid4())
            return arm_json(200, self._zone_json(asked, found))
        made = self._made(name, str(asked.group))
        made.tags = dict(content.get("tags") or {})
        return arm_json(201, self._zone_json(asked, made))

    def _made(self, name: str, group: str) -> StoredZone:
        set_ = f"{len(self.zones) % 9 + 1:02d}"
        servers = tuple(f"ns{n}-{set_}.azure-dns.{end}." for n, end in enumerate(("com", "net", "org", "info"), 1))
        made = StoredZone(name, group, servers, signed=self.signs)
        self.zones[group.lower(), name.lower()] = made
        self._calls = {key: times for key, times in self._calls.items() if key[0] != id(made)}
        self.put_raw(name.lower(), "@", "SOA", SOARecord={"host": servers[0], **_SOA})
        self.put_raw(name.lower(), "@", "NS", TTL=172_800, NSRecords=[{"nsdname": server} for server in servers])
        return made

    def _get_zone(self, asked: ArmAsked) -> Response:
        return arm_json(200, self._zone_json(asked, self._zone(asked)))

    def _delete_zone(self, asked: ArmAsked) -> Response:
        found = self.zones.get(self._key(asked))
        if found is None:
            return arm_json(204, None)
        _conditions(asked, found.etag)
        if self._operations.failure is None:
            del self.zones[self._key(asked)]
        return arm_json(202, None, self._operations.begin(asked.subscription, self.namespace))

    def _sign(self, asked: ArmAsked) -> Response:
        if asked.version != _PREVIEW:
            raise ArmRefusalAnswer(404, "InvalidResourceType", "The resource type could not be found.")
        self._zone(asked).signed = asked.method == "PUT"
        return arm_json(200, {"name": "default", "properties": {"provisioningState": "Succeeded"}})

    # record sets

    def _list_sets(self, asked: ArmAsked) -> Response:
        zone = self._zone(asked)
        self._counted(zone, "list")
        kind, suffix = asked.parts[2].upper(), asked.query.get("$recordsetnamesuffix", "").lower()
        if not _is_all(kind):
            self._known(asked, kind)
        here = [
            found
            for (name, type_), found in sorted(zone.sets.items())
            if (_is_all(kind) or type_ == kind)
            and (asked.version == _PREVIEW or type_ not in _LATER)
            and (not suffix or name.endswith(f".{suffix}"))
        ]
        return self._page(asked, here, lambda found: f"{found.name.lower()} {found.type}",
                          lambda found: self._set_json(asked, zone, found))  # fmt: skip

    def _get_set(self, asked: ArmAsked) -> Response:
        zone = self._zone(asked)
        self._counted(zone, "get")
        found = zone.sets.get(self._set_key(asked))
        if found is None:
            message = f"The resource record '{asked.parts[3]}' does not exist in resource group '{asked.group}' of"
            raise ArmRefusalAnswer(404, "NotFound", f"{message} subscription '{asked.subscription}'.", flat=True)
        return arm_json(200, self._set_json(asked, zone, found))

    def _put_set(self, asked: ArmAsked) -> Response:
        zone, key = self._zone(asked), self._set_key(asked)
        found = zone.sets.get(key)
        self._counted(zone, "create" if found is None else "update")
        _conditions(asked, None if found is None else found.etag)
        sent = asked.content.get("properties")
        if not isinstance(sent, dict):
            raise _bad("The record set has no properties.")
        kept = dict(found.properties) if found is not None and asked.method == "PATCH" else {}
        properties = {name: value for name, value in {**kept, **sent}.items() if name != "fqdn"}
        self._allowed(zone, key, asked.parts[3], properties)
        if found is None:
            if len(zone.sets) >= self.sets:
                raise ArmRefusalAnswer(
                    400, "QuotaExceeded", f"The zone '{zone.name}' has {self.sets} record sets.", flat=True
                )
            found = zone.sets[key] = StoredSet(asked.parts[3], key[1], properties)
            return arm_json(201, self._set_json(asked, zone, found))
        found.properties, found.etag = properties, str(uuid.uuid4())
        return arm_json(200, self._set_json(asked, zone, found))

    def _delete_set(self, asked: ArmAsked) -> Response:
        zone, key = self._zone(asked), self._set_key(asked)
        self._counted(zone, "delete")
        found = zone.sets.get(key)
        if found is None:
            return arm_json(204, None)
        _conditions(asked, found.etag)
        if key in {("@", "NS"), ("@", "SOA")}:
            raise _bad(f"The record set of type '{key[1]}' at the zone apex cannot be deleted.")
        del zone.sets[key]
        return arm_json(200, None)

    # what a record set may be

    def _allowed(self, zone: StoredZone, key: tuple[str, str], name: str, properties: dict[str, Any]) -> None:
        kind = key[1]
        if not _OWNER.fullmatch(name) or len(name) + len(zone.name) + 1 > 253:
            raise _bad(f"The relative record set name '{name}' is invalid.")
        ttl = properties.get("TTL")
        if type(ttl) is not int or not 1 <= ttl < 2**31:
            raise _bad(f"The TTL '{ttl}' is invalid; it must be between 1 and 2147483647.")
        if kind == "SOA" and name != "@":
            raise _bad("A record set of type 'SOA' exists at the zone apex only.")
        if kind == "NS" and name.startswith("*"):
            raise _bad("Wildcard record sets of type 'NS' are not supported.")
        if kind in _SIGNED and not zone.signed:
            raise _bad(f"Record sets of type '{kind}' need a zone that is signed.")
        self._beside(zone, key)
        target = (properties.get("targetResource") or {}).get("id")
        others = [field for field in _FIELDS.values() if field != _FIELDS[kind] and properties.get(field)]
        if others:
            raise _bad(f"The record set of type '{kind}' has '{others[0]}'.")
        if target is None:
            self._values(zone, key, properties.get(_FIELDS[kind]) or [])
        elif kind not in _ALIASES or properties.get(_FIELDS[kind]):
            raise _bad("A record set has records, or a target resource if its type is A, AAAA or CNAME.")

    def _beside(self, zone: StoredZone, key: tuple[str, str]) -> None:
        others = {kind for (name, kind) in zone.sets if name == key[0] and kind != key[1]}
        if key[1] == "CNAME" and others:
            message = "The CNAME record could not be created because another record with the same name already exists"
            raise ArmRefusalAnswer(409, "Conflict", f"{message} in this zone.", flat=True)
        if "CNAME" in others:
            message = "The record could not be created because a CNAME record with the same name already exists"
            raise ArmRefusalAnswer(409, "Conflict", f"{message} in this zone.", flat=True)

    def _values(self, zone: StoredZone, key: tuple[str, str], found: Any) -> None:  # noqa: ANN401  JSON
        name, kind = key
        values = found if isinstance(found, list) else [found]
        if len(values) > (_TXT_VALUES if kind == "TXT" else _VALUES):
            raise _bad(f"The record set has {len(values)} records, which is more than are allowed.")
        if len({repr(value).lower() if kind != "TXT" else repr(value) for value in values}) < len(values):
            raise _bad("The record set has a record twice.")
        for value in values:
            _CHECKS[kind](value)
        if kind == "TXT" and sum(len(part) for value in values for part in value["value"]) > _TXT_CHARACTERS:
            raise _bad(f"The record set has more than {_TXT_CHARACTERS} characters.")
        if name == "@" and kind == "NS" and not set(zone.nameservers) <= {_dotted(each["nsdname"]) for each in values}:
            raise _bad("The name servers of the zone cannot be removed from its NS record set.")
        if kind == "SOA" and _dotted(str(values[0].get("host"))) != zone.nameservers[0]:
            raise _bad("The host of the SOA record cannot be changed.")

    # what they share

    def _counted(self, zone: StoredZone, what: str) -> None:
        """Refuse what comes too often."""
        now = self._clock.now()
        times = self._calls.setdefault((id(zone), what), deque())
        while times and (now - times[0]).total_seconds() >= 60:
            times.popleft()
        if len(times) >= LIMITS[what]:
            left = max(1, math.ceil(60 - (now - times[0]).total_seconds()))
            raise ArmRefusalAnswer(
                429, "TooManyRequests", "The request was throttled.", {"Retry-After": str(left)}, flat=True
            )
        times.append(now)

    def _key(self, asked: ArmAsked) -> tuple[str, str]:
        return str(asked.group).lower(), asked.parts[1].lower()

    def _zone(self, asked: ArmAsked) -> StoredZone:
        found = self.zones.get(self._key(asked))
        if found is not None:
            return found
        if len(asked.parts) == 4 and asked.method != "GET":
            message = "Can not perform requested operation on nested resource. Parent resource"
            raise ArmRefusalAnswer(404, "ParentResourceNotFound", f"{message} '{asked.parts[1]}' not found.")
        message = f"The Resource 'Microsoft.Network/dnszones/{asked.parts[1]}' under resource group '{asked.group}'"
        raise ArmRefusalAnswer(404, "ResourceNotFound", f"{message} was not found.")

    def _set_key(self, asked: ArmAsked) -> tuple[str, str]:
        self._known(asked, asked.parts[2].upper())
        return asked.parts[3].lower(), asked.parts[2].upper()

    def _known(self, asked: ArmAsked, kind: str) -> None:
        if kind not in _FIELDS or (kind in _LATER and asked.version != _PREVIEW):
            raise ArmRefusalAnswer(404, "InvalidResourceType", f"The resource type 'dnszones/{kind}' is unknown.")

    def _page(
        self, asked: ArmAsked, items: list[Any], mark: Callable[[Any], str], shown: Callable[[Any], dict[str, Any]]
    ) -> Response:
        after = asked.query.get("$skipToken")
        left = [item for item in items if after is None or mark(item) > after]
        size = min(int(asked.query.get("$top", self.page_size)), self.page_size)
        content: dict[str, Any] = {"value": [shown(item) for item in left[:size]]}
        if len(left) > size:
            token = quote(mark(left[size - 1]), safe="")
            top = f"&$top={asked.query['$top']}" if "$top" in asked.query else ""
            content["nextLink"] = f"{HOST}{asked.url}?api-version={asked.version}{top}&$skipToken={token}"
        return arm_json(200, content)

    def _zone_json(self, asked: ArmAsked, zone: StoredZone) -> dict[str, Any]:
        return {
            "id": _id(asked, zone),
            "name": zone.name,
            "type": "Microsoft.Network/dnszones",
            "etag": zone.etag,
            "location": "global",
            "tags": zone.tags,
            "properties": {
                "maxNumberOfRecordSets": self.sets,
                "nameServers": list(zone.nameservers),
                "numberOfRecordSets": len(zone.sets),
                "zoneType": zone.zone_type,
            },
        }

    def _set_json(self, asked: ArmAsked, zone: StoredZone, found: StoredSet) -> dict[str, Any]:
        owner = f"{zone.name}." if found.name == "@" else f"{found.name}.{zone.name}."
        return {
            "id": f"{_id(asked, zone)}/{found.type}/{found.name}",
            "name": found.name,
            "type": f"Microsoft.Network/dnszones/{found.type}",
            "etag": found.etag,
            "properties": {
                "fqdn": owner, "provisioningState": "Succeeded", "targetResource": {}, **found.properties
            },
        }  # fmt: skip


def _id(asked: ArmAsked, zone: StoredZone) -> str:
    group = f"/subscriptions/{asked.subscription}/resourceGroups/{zone.group.lower()}"
    return f"{group}/providers/Microsoft.Network/dnszones/{zone.name}"


def _is_all(part: str) -> bool:
    return part.lower() in {"recordsets", "all"}


def _bad(message: str) -> ArmRefusalAnswer:
    return ArmRefusalAnswer(400, "BadRequest", message, flat=True)


def _conditions(asked: ArmAsked, etag: str | None) -> None:
    """Hold the conditions of a request against what there is.

    Raises:
        ArmRefusalAnswer: one does not hold.
    """
    wanted, unwanted = asked.headers.get("If-Match"), asked.headers.get("If-None-Match")
    if wanted is not None and (etag is None or wanted not in {"*", etag}):
        condition = (
            f"The condition '{wanted}' in the If-Match header was not satisfied. The current was '{etag or ''}'."
        )
        raise ArmRefusalAnswer(412, "PreconditionFailed", condition, flat=True)
    if unwanted == "*" and etag is not None:
        condition = f"The condition '*' in the If-None-Match header was not satisfied. The current was '{etag}'."
        raise ArmRefusalAnswer(412, "PreconditionFailed", condition, flat=True)


# values, as Azure takes them


def _dotted(name: str) -> str:
    return f"{name.lower().removesuffix('.')}."


def _is_name(value: Any, *, root: bool = False) -> None:  # noqa: ANN401  JSON
    if not isinstance(value, str) or not (_TARGET.fullmatch(value) or (root and value == ".")) or len(value) > 254:
        raise _bad(f"The domain name '{value}' is invalid.")


def _is_number(value: Any, most: int) -> None:  # noqa: ANN401  JSON
    if type(value) is not int or not 0 <= value <= most:
        raise _bad(f"The value '{value}' is out of range.")


def _is_text(value: Any, most: int = 255, *, empty: bool = False) -> None:  # noqa: ANN401  JSON
    if not isinstance(value, str) or not value.isascii() or len(value) > most or not (value or empty):
        raise _bad(f"The value '{value}' is invalid: it must have 1 to {most} characters.")


def _is_hex(value: Any) -> None:  # noqa: ANN401  JSON
    if not isinstance(value, str) or not re.fullmatch(r"(?:[0-9A-Fa-f]{2})+", value):
        raise _bad(f"The value '{value}' is not hexadecimal.")


def _is_address(value: Any, kind: type[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> None:  # noqa: ANN401  JSON
    try:
        kind(value)
    except ValueError:
        raise _bad(f"The IP address '{value}' is invalid.") from None


def _check_caa(value: Any) -> None:  # noqa: ANN401  JSON
    _is_number(value.get("flags"), 255)
    _is_text(value.get("tag"), 15)
    _is_text(value.get("value"), 1024)


def _check_mx(value: Any) -> None:  # noqa: ANN401  JSON
    _is_number(value.get("preference"), 65535)
    _is_name(value.get("exchange"))


def _check_srv(value: Any) -> None:  # noqa: ANN401  JSON
    for name in ("priority", "weight", "port"):
        _is_number(value.get(name), 65535)
    _is_name(value.get("target"), root=True)


def _check_txt(value: Any) -> None:  # noqa: ANN401  JSON
    if not isinstance(value.get("value"), list) or not value["value"]:
        raise _bad("The TXT record has no value.")
    for part in value["value"]:
        _is_text(part)


def _check_soa(value: Any) -> None:  # noqa: ANN401  JSON
    _is_name(value.get("email"))
    for name in ("serialNumber", "refreshTime", "retryTime", "expireTime", "minimumTTL"):
        _is_number(value.get(name), 2**32 - 1)


def _check_naptr(value: Any) -> None:  # noqa: ANN401  JSON
    for name in ("order", "preference"):
        _is_number(value.get(name), 65535)
    for name in ("flags", "services", "regexp"):
        _is_text(value.get(name), empty=True)
    _is_name(value.get("replacement"), root=True)


def _check_ds(value: Any) -> None:  # noqa: ANN401  JSON
    _is_number(value.get("keyTag"), 65535)
    _is_number(value.get("algorithm"), 255)
    _is_number((value.get("digest") or {}).get("algorithmType"), 255)
    _is_hex((value.get("digest") or {}).get("value"))


def _check_tlsa(value: Any) -> None:  # noqa: ANN401  JSON
    for name in ("usage", "selector", "matchingType"):
        _is_number(value.get(name), 255)
    _is_hex(value.get("certificateAssociationData"))


_CHECKS: Mapping[str, Callable[[Any], None]] = {
    "A": lambda value: _is_address(value.get("ipv4Address"), ipaddress.IPv4Address),
    "AAAA": lambda value: _is_address(value.get("ipv6Address"), ipaddress.IPv6Address),
    "CAA": _check_caa,
    "CNAME": lambda value: _is_name(value.get("cname")),
    "DS": _check_ds,
    "MX": _check_mx,
    "NAPTR": _check_naptr,
    "NS": lambda value: _is_name(value.get("nsdname")),
    "PTR": lambda value: _is_name(value.get("ptrdname")),
    "SOA": _check_soa,
    "SRV": _check_srv,
    "TLSA": _check_tlsa,
    "TXT": _check_txt,
}
