"""The rules of Route 53 for names, values and batches of changes: what a zone becomes, or why a batch is refused."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import dns.exception
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from shiftable_aws._strict_refused import Refused

__all__ = ["Key", "Record", "Refused", "Zone", "canonical", "changed", "key_of", "order_of"]

Key = tuple[str, str, str]
"""Name, type and set identifier, as Route 53 writes them."""

Record = dict[str, Any]
Change = Mapping[str, Any]

_MAX_ELEMENTS = 1000  # Route 53 quotas, ChangeResourceRecordSets
_MAX_CHARACTERS = 32_000  # the same
_MAX_VALUES = 400  # Route 53 quotas, records
MAX_RECORD_SETS = 10_000  # the same
_POLICIES = (
    *("Weight", "Region", "GeoLocation", "Failover", "MultiValueAnswer", "CidrRoutingConfig"),
    "GeoProximityLocation",
)
_ESCAPE = re.compile(rb"\\([0-3][0-7]{2})|\\(.)", re.DOTALL)
_QUOTED = re.compile(r'\s*"(?:[^"\\]|\\.)*"(?:\s*"(?:[^"\\]|\\.)*")*\s*', re.DOTALL)
_KEPT = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_")


@attrs.frozen
class Zone:
    """The state that a batch meets."""

    id: str
    name: str
    records: Mapping[Key, Record]
    protected: set[tuple[str, str]]
    record_sets: int = MAX_RECORD_SETS


# names


def canonical(name: str, code: str) -> str:
    r"""Return a name as Route 53 keeps it: lower case, a dot at the end, all but ``a-z0-9-_`` as octal escapes.

    Raises:
        Refused: with that code.
    """
    try:
        raw = name.encode("ascii")
    except UnicodeEncodeError as exc:
        text = f"FATAL problem: UnsupportedCharacter (Value contains unsupported characters) encountered with '{name}'"
        raise Refused(code, text) from exc
    if any(byte <= 0x20 or byte == 0x7F for byte in raw):
        raise Refused(code, f"FATAL problem: UnsupportedCharacter encountered with '{name}'")
    parts = _labels(raw)
    if not parts or any(not part for part in parts):
        raise Refused(code, f"FATAL problem: DomainLabelEmpty (Domain label is empty) encountered with '{name}'")
    if any(len(part) > 63 for part in parts):
        raise Refused(code, f"FATAL problem: DomainLabelTooLong (Domain label is too long) encountered with '{name}'")
    if sum(len(part) + 1 for part in parts) + 1 > 255:
        raise Refused(code, f"FATAL problem: DomainNameTooLong (Domain name is too long) encountered with '{name}'")
    return "".join(f"{_kept(part)}." for part in parts)


def _labels(raw: bytes) -> list[bytes]:
    found, label, at = list[bytes](), bytearray(), 0
    while at < len(raw):
        escape = _ESCAPE.match(raw, at)
        if escape is not None:
            label += bytes([int(escape[1], 8)]) if escape[1] else escape[2]
            at = escape.end()
            continue
        if raw[at : at + 1] == b".":
            found.append(bytes(label))
            label.clear()
        else:
            label.append(raw[at])
        at += 1
    return [*found, bytes(label)] if label else found


def _kept(label: bytes) -> str:
    return "".join(chr(byte) if byte in _KEPT else f"\\{byte:03o}" for byte in label.lower())


def key_of(record: Record) -> Key:
    """Return what identifies a record set whose name is canonical."""
    return record["Name"], record["Type"], record.get("SetIdentifier", "")


def order_of(key: Key) -> Key:
    """Return what listings are sorted by: the name with its labels reversed, the dot at the end with them."""
    return ".".join(reversed(key[0].removesuffix(".").split("."))) + ".", key[1], key[2]


def _is_within(name: str, zone: str) -> bool:
    return name == zone or name.endswith(f".{zone}")  # a dot in a label is \056


# values


def _faults_of_values(record: Record) -> Iterator[str]:
    """Say what is wrong with the values of a record set."""
    kind, values = record["Type"], [entry["Value"] for entry in record.get("ResourceRecords", ())]
    if len(values) > _MAX_VALUES:
        yield f"Number of records limit of {_MAX_VALUES} exceeded."
    for value, times in Counter(values).items():
        if times > 1:
            yield f"Duplicate Resource Record: '{value}'"
    if kind in {"CNAME", "SOA"} and len(values) > 1:
        yield f"A record set of type {kind} can have only one value."
    for value in values:
        fault = _fault_of_value(kind, value)
        if fault is not None:
            yield f"Invalid Resource Record: 'FATAL problem: {fault} encountered with '{value}''"


def _fault_of_value(kind: str, value: str) -> str | None:
    if not value.isascii():
        return "UnsupportedCharacter (Value contains unsupported characters)"
    if kind in {"TXT", "SPF"} and not _QUOTED.fullmatch(value):
        return "InvalidCharacterString (Value should be enclosed in quotation marks)"
    try:
        dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.from_text(kind), _decimal(value))
    except (dns.exception.DNSException, ValueError) as exc:
        if "long" in str(exc):
            return "CharacterStringTooLong (Value is too long)"
        what = {"A": "IllegalIPv4Address", "AAAA": "IllegalIPv6Address"}.get(kind, "NotValid")
        return f"{kind}RRDATA{what} (Value is not valid)"
    return None


def _decimal(value: str) -> str:
    r"""Turn Route 53's octal escapes into the decimal ones of zone files; ``\"`` and ``\\`` are the same in both."""

    def turned(match: re.Match[str]) -> str:
        return f"\\{int(match[1], 8):03d}" if match[1] else match[0]

    return re.sub(r"\\(?:([0-3][0-7]{2})|.)", turned, value)


# batches


def changed(zone: Zone, changes: list[Change]) -> dict[Key, Record]:
    """Return what the zone's records become.

    Raises:
        Refused: the batch; nothing of it counts.
    """
    _check_size(changes)
    wanted = [(change["Action"], _record(change)) for change in changes]
    written = [record for action, record in wanted if action != "DELETE"]
    _refuse([fault for record in written for fault in _faults_of_values(record)])  # then nothing else is looked at
    work = _Work(zone)
    faults = [fault for action, record in wanted for fault in work.step(action, record)]
    faults += _faults_of_zone(zone, work.records)
    _refuse(list(dict.fromkeys(faults)))
    return work.records


def _refuse(faults: list[str]) -> None:
    if faults:
        raise Refused("InvalidChangeBatch", f"[{', '.join(faults)}]")


def _check_size(changes: list[Change]) -> None:
    elements = characters = 0
    for change in changes:
        times = 2 if change["Action"] == "UPSERT" else 1
        values = [entry["Value"] for entry in change["ResourceRecordSet"].get("ResourceRecords", ())]
        elements += times * len(values)
        characters += times * sum(map(len, values))
    if elements > _MAX_ELEMENTS:
        raise Refused("InvalidChangeBatch", f"[Number of records limit of {_MAX_ELEMENTS} exceeded.]")
    if characters > _MAX_CHARACTERS:
        raise Refused("InvalidChangeBatch", f"[Number of characters limit of {_MAX_CHARACTERS} exceeded.]")


def _record(change: Change) -> Record:
    """Return a record set with its names as Route 53 keeps them; its form must be one of those that exist."""
    record = dict(change["ResourceRecordSet"])
    alias, plain = "AliasTarget" in record, "TTL" in record and "ResourceRecords" in record
    half = ("TTL" in record) != ("ResourceRecords" in record)
    where = f"[Action={change['Action']}, Name={record['Name']}, Type={record['Type']}, "
    where += f"SetIdentifier={record.get('SetIdentifier', 'null')}]"
    if alias == plain or half or "TrafficPolicyInstanceId" in record:
        text = "Expected exactly one of [AliasTarget, all of [TTL, and ResourceRecords], or TrafficPolicyInstanceId]"
        raise Refused("InvalidInput", f"Invalid request: {text}, but found none or more in Change with {where}")
    routed = [policy for policy in _POLICIES if policy in record]
    if len(routed) != (1 if "SetIdentifier" in record else 0):
        text = f"Expected exactly one of [{', '.join(_POLICIES)}] with SetIdentifier, and none without"
        raise Refused("InvalidInput", f"Invalid request: {text}, in Change with {where}")
    if alias and "MultiValueAnswer" in record:
        raise Refused("InvalidInput", f"Invalid request: no alias can be MultiValueAnswer, in Change with {where}")
    record["Name"] = canonical(record["Name"], "InvalidChangeBatch")
    if alias:
        target = record["AliasTarget"]
        record["AliasTarget"] = target | {"DNSName": canonical(target["DNSName"], "InvalidChangeBatch")}
    return record


class _Work:
    """A zone's records while a batch is carried out on a copy of them."""

    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._done: dict[Key, list[str]] = {}
        self._by_name: dict[str, set[Key]] = {}
        self.records: dict[Key, Record] = {}
        for key, record in zone.records.items():
            self._hold(key, record)

    def step(self, action: str, record: Record) -> Iterator[str]:
        """Carry out one change; say what is wrong with it."""
        zone, key = self._zone, key_of(record)
        name, kind, _ = key
        if not _is_within(name, zone.name):
            yield f"RRSet with DNS name {name} is not permitted in zone {zone.name}"
            return
        if (name, kind) in zone.protected:
            yield f"The resource record set [name='{name}', type='{kind}'] is protected by a record set protection"
            return
        before = self._done.setdefault(key, [])
        before.append(action)
        if before not in (["CREATE"], ["DELETE"], ["UPSERT"], ["DELETE", "CREATE"]):
            yield f"The request contains an invalid set of changes for a resource record set '{kind} {name}'"
            return
        if action == "DELETE":
            yield from self._delete(key, record)
            return
        if action == "CREATE" and key in self.records:
            yield f"Tried to create resource record set {_shown(key)} but it already exists"
        yield from self._faults_of_target(key, record)
        self._hold(key, record)
        yield from self._faults_of_place(key)

    def _hold(self, key: Key, record: Record) -> None:
        self.records[key] = record
        self._by_name.setdefault(key[0], set()).add(key)

    def _delete(self, key: Key, record: Record) -> Iterator[str]:
        held = self.records.pop(key, None)
        self._by_name.get(key[0], set()).discard(key)
        if held is None:
            yield f"Tried to delete resource record set {_shown(key)} but it was not found"
        elif _identity(held) != _identity(record):
            text = "but the values provided do not match the current values"
            yield f"Tried to delete resource record set {_shown(key)} {text}"
        if key[0] == self._zone.name and key[1] in {"NS", "SOA"}:
            count = "exactly one SOA record" if key[1] == "SOA" else "at least one NS record for the zone itself"
            yield f"A HostedZone must contain {count}."

    def _faults_of_target(self, key: Key, record: Record) -> Iterator[str]:
        """Say that the target of an alias within the zone is not there, or not yet."""
        target = record.get("AliasTarget")
        if target is None or target["HostedZoneId"] != self._zone.id:
            return
        held = self._by_name.get(target["DNSName"], set()) - {key}
        if key[1] not in {other[1] for other in held}:
            yield (
                f"Tried to create an alias that targets {target['DNSName']}, type {key[1]} in zone {self._zone.id}, "
                "but that target was not found"
            )

    def _faults_of_place(self, key: Key) -> Iterator[str]:
        """Say why a record set cannot stand where it was put, by what stands there now."""
        name, kind, identifier = key
        zone, here = self._zone.name, self._by_name[name]
        beside = {held[1] for held in here} - {kind}
        if kind == "CNAME" and name == zone:
            yield f"RRSet of type CNAME with DNS name {name} is not permitted at apex in zone {zone}"
        elif kind == "CNAME" and beside:
            text = "it conflicts with other records with the same DNS name"
            yield f"RRSet of type CNAME with DNS name {name} is not permitted as {text} in zone {zone}"
        elif "CNAME" in beside:
            text = "a conflicting RRSet of type CNAME with the same DNS name already exists"
            yield f"RRSet of type {kind} with DNS name {name} is not permitted because {text} in zone {zone}"
        if kind == "SOA" and name != zone:
            yield f"RRSet of type SOA with DNS name {name} is not permitted in zone {zone}"
        if kind == "NS" and name.startswith("\\052."):
            yield f"RRSet of type NS with DNS name {name} is not permitted: no wildcard can be delegated"
        group = [self.records[held] for held in here if held[1] == kind]
        forms = {next((policy for policy in _POLICIES if policy in record), "simple") for record in group}
        if len(forms) > 1:
            others = " and ".join(sorted(forms))
            yield (
                f"RRSet with DNS name {name}, type {kind}, SetIdentifier {identifier} cannot be created as "
                f"{others} RRSets exist with the same name and type."
            )


def _faults_of_zone(zone: Zone, records: Mapping[Key, Record]) -> Iterator[str]:
    if len(records) > max(zone.record_sets, len(zone.records)):
        yield f"The limit of {zone.record_sets} resource record sets in a hosted zone is exceeded"
    ttls: dict[tuple[str, str], set[int]] = {}
    for key, record in records.items():
        if "Weight" in record and "TTL" in record:
            ttls.setdefault(key[:2], set()).add(record["TTL"])
    for (name, kind), found in ttls.items():
        if len(found) > 1:
            yield (
                f"RRSet of type {kind} with DNS name {name} is not permitted: weighted record sets must have one TTL"
            )


def _identity(record: Record) -> tuple[Record, list[str]]:
    """Return all of a record set, its values in any order."""
    values = sorted(entry["Value"] for entry in record.get("ResourceRecords", ()))
    return {name: part for name, part in record.items() if name != "ResourceRecords"}, values


def _shown(key: Key) -> str:
    identifier = f", set-identifier='{key[2]}'" if key[2] else ""
    return f"[name='{key[0]}', type='{key[1]}'{identifier}]"
