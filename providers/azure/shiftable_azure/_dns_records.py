"""Record sets in Azure DNS's JSON: a list of objects for each type, names relative to the zone."""

from __future__ import annotations

import ipaddress
import json
import string
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from shiftable.dns.driver import Policy, RecordSet, absolute, labels, relative

__all__ = ["ALIASES", "TYPES", "Mark", "properties_of", "record_of", "relative_name", "unfit", "wire_name"]

PROVIDER = "azure"
ALIASES = frozenset({"A", "AAAA", "CNAME"})
"""Types whose values may be taken from a resource of Azure's."""

_TARGETS = ("targetResource", "trafficManagementProfile")
_SERVICES_OWN = frozenset({"TTL", "fqdn", "metadata", "provisioningState"})
_TXT_VALUES = 400
_TXT_CHARACTERS = 4096
_SOURCE = "Azure DNS, limits"
_ROOT = b"\0"
_HOST = frozenset(string.ascii_letters + string.digits + "-_")


@attrs.frozen
class Mark:
    """What ``RecordSet.revision`` says: the ETag, and the metadata that are written back with the set."""

    etag: str
    metadata: Mapping[str, str] = attrs.field(factory=dict)

    @classmethod
    def read(cls, record: RecordSet | None) -> Mark | None:
        """Return the mark of a record set, if it came from Azure."""
        try:
            found = json.loads(record.revision) if record is not None and record.revision else None
            return cls(found["etag"], found["metadata"]) if found is not None and found["etag"] else None
        except (ValueError, KeyError, TypeError):
            return None  # another provider's

    def __str__(self) -> str:
        return _canonical({"etag": self.etag, "metadata": dict(self.metadata)})


def relative_name(name: str, zone: str) -> str | None:
    """Return an owner name as URLs have it; ``None``: one that Azure holds no records of."""
    found = relative(name, f"{zone}.")
    return None if "\\" in found else found


def record_of(zone: str, resource: Mapping[str, Any]) -> RecordSet:
    """Read one record set. What cannot be understood comes with a policy that has it in Azure's words."""
    facts = resource.get("properties") or {}
    kind = str(resource["type"]).rpartition("/")[2].upper()
    targets = {name: facts[name] for name in _TARGETS if (facts.get(name) or {}).get("id")}
    policy, rdatas = None, tuple[bytes, ...]()
    if targets:
        policy = Policy(provider=PROVIDER, data=_canonical(targets))
    else:
        try:
            rdatas = tuple(_rdatas(kind, facts))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            rdatas = ()
        if not rdatas:  # Azure also keeps sets that are empty
            policy = Policy(provider=PROVIDER, data=_canonical(_raw(kind, facts)))
    mark = Mark(str(resource.get("etag") or ""), facts.get("metadata") or {})
    return RecordSet(
        name=_owner(str(resource["name"]), zone),
        type=kind,
        ttl=int(facts.get("TTL") or 0),
        rdatas=rdatas,
        policy=policy,
        revision=str(mark),
    )


def properties_of(record: RecordSet, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return what is sent of a record set."""
    found: dict[str, Any] = {"TTL": record.ttl}
    if metadata:
        found["metadata"] = dict(metadata)
    if record.policy is not None:
        return {**found, **json.loads(record.policy.data)}
    field, single, _, written = TYPES[record.type]
    values = [written(_Wire(rdata)) for rdata in record.rdatas]
    return found | {field: values[0] if single else values}


def unfit(record: RecordSet) -> str | None:
    """Say why Azure could not keep a record set exactly, beside what its features say."""
    if record.policy is not None:
        return _unfit_policy(record, record.policy)
    if record.type == "NS" and record.name.startswith("*."):
        return "Azure DNS has no wildcards for NS"
    if record.type == "TXT":
        return _unfit_txt(record)
    if record.type == "MX" and any(rdata[2:] == _ROOT for rdata in record.rdatas):
        return "Azure DNS refuses the mail host '.'"
    try:
        properties_of(record, {})
    except (ValueError, IndexError) as exc:
        return str(exc)
    return None


def _unfit_policy(record: RecordSet, policy: Policy) -> str | None:
    try:
        found = json.loads(policy.data)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not found or found.keys() & _SERVICES_OWN:
        return "its policy is none of Azure DNS: a JSON object, as listings have it"
    if record.rdatas:
        return "what Azure DNS answers by a policy has no values of its own"
    if found.keys() & set(_TARGETS) and record.type not in ALIASES:
        return f"Azure DNS has aliases for {', '.join(sorted(ALIASES))} alone"
    return None


def _unfit_txt(record: RecordSet) -> str | None:
    if len(record.rdatas) > _TXT_VALUES:
        return f"there are {len(record.rdatas):,} values; of TXT the limit is {_TXT_VALUES} ({_SOURCE})"
    try:
        size = sum(len(part) for rdata in record.rdatas for part in _Wire(rdata).texts())
    except (ValueError, IndexError) as exc:
        return str(exc)
    if size > _TXT_CHARACTERS:
        return f"there are {size:,} characters; of TXT the limit is {_TXT_CHARACTERS:,} ({_SOURCE})"
    return None


class _Wire:
    """Reads an rdata from its beginning to its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, size: int) -> int:
        return int.from_bytes(self._taken(size), "big")

    def text(self) -> str:
        return _ascii(self._taken(self.number(1)))

    def texts(self) -> list[str]:
        found = list[str]()
        while self._at < len(self._data):
            found.append(self.text())
            if not found[-1]:
                raise ValueError("Azure DNS refuses empty strings")
        return found

    def rest(self) -> bytes:
        return self._taken(len(self._data) - self._at)

    def name(self) -> str:
        found = ""
        while size := self.number(1):
            label = self._taken(size)
            if not label.replace(b"-", b"").replace(b"_", b"").isalnum() and label != b"*":
                raise ValueError(f"Azure DNS holds no such name as {label!r} in a value")
            found += f"{label.decode()}."
        return found or "."

    def _taken(self, size: int) -> bytes:
        found = self._data[self._at : self._at + size]
        if len(found) < size:
            raise ValueError("the value ends early")
        self._at += size
        return found


def _ascii(text: bytes) -> str:
    if not all(0x20 <= byte <= 0x7E for byte in text):
        raise ValueError("Azure DNS keeps printable ASCII alone in texts")
    return text.decode("ascii")


def _rdatas(kind: str, facts: Mapping[str, Any]) -> Iterable[bytes]:
    field, single, read, _ = TYPES[kind]
    found = facts[field]
    return [read(each) for each in ([found] if single else found)]


def _owner(name: str, zone: str) -> str:
    """Return the canonical name of what Azure calls ``www`` or ``@``."""
    try:
        return absolute(name, f"{zone}.")
    except ValueError:
        kept = _HOST if "" in name.split(".") else _HOST | {"."}  # dots that part nothing belong to a label
        escaped = (chr(byte) if chr(byte) in kept else f"\\{byte:03d}" for byte in name.encode())
        return absolute("".join(escaped), f"{zone}.")


def _canonical(found: Mapping[str, Any]) -> str:
    return json.dumps(found, sort_keys=True, separators=(",", ":"))


def _raw(kind: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes up a record set, but for what the service adds and what is written anyway."""
    found = {name: value for name, value in facts.items() if name not in _SERVICES_OWN and value}
    return found or {TYPES[kind][0] if kind in TYPES else f"{kind}Records": []}


# reading of JSON: wire form of what is there, an error for what is not as it should be


def wire_name(text: str) -> bytes:
    """Return the wire form of a name, which Azure has with and without a dot at the end."""
    return b"".join(bytes([len(label)]) + label for label in labels(text)) + _ROOT


def _string(text: str) -> bytes:
    data = text.encode("ascii")
    return bytes([len(data)]) + data


def _numbers(found: Mapping[str, Any], **sizes: int) -> bytes:
    return b"".join(int(found[name]).to_bytes(size, "big") for name, size in sizes.items())


def _read_soa(found: Mapping[str, Any]) -> bytes:
    times = _numbers(found, serialNumber=4, refreshTime=4, retryTime=4, expireTime=4, minimumTTL=4)
    return wire_name(found["host"]) + wire_name(found["email"]) + times


def _read_naptr(found: Mapping[str, Any]) -> bytes:
    strings = b"".join(_string(found[name]) for name in ("flags", "services", "regexp"))
    return _numbers(found, order=2, preference=2) + strings + wire_name(found["replacement"])


def _read_ds(found: Mapping[str, Any]) -> bytes:
    digest = found["digest"]
    return _numbers(found, keyTag=2, algorithm=1) + _numbers(digest, algorithmType=1) + bytes.fromhex(digest["value"])


def _read_tlsa(found: Mapping[str, Any]) -> bytes:
    numbers = _numbers(found, usage=1, selector=1, matchingType=1)
    return numbers + bytes.fromhex(found["certificateAssociationData"])


# writing of it; the order of the calls is that of the wire


def _write_ds(wire: _Wire) -> dict[str, Any]:
    found = {"keyTag": wire.number(2), "algorithm": wire.number(1)}
    return {**found, "digest": {"algorithmType": wire.number(1), "value": wire.rest().hex().upper()}}


def _write_tlsa(wire: _Wire) -> dict[str, Any]:
    found = {name: wire.number(1) for name in ("usage", "selector", "matchingType")}
    return {**found, "certificateAssociationData": wire.rest().hex().upper()}


def _write_naptr(wire: _Wire) -> dict[str, Any]:
    found: dict[str, Any] = {"order": wire.number(2), "preference": wire.number(2)}
    found |= {name: wire.text() for name in ("flags", "services", "regexp")}
    return {**found, "replacement": wire.name()}


def _write_soa(wire: _Wire) -> dict[str, Any]:
    found: dict[str, Any] = {"host": wire.name(), "email": wire.name()}
    times = ("serialNumber", "refreshTime", "retryTime", "expireTime", "minimumTTL")
    return found | {name: wire.number(4) for name in times}


TYPES: Mapping[str, tuple[str, bool, Callable[[Any], bytes], Callable[[_Wire], Any]]] = {
    "A": (
        "ARecords",
        False,
        lambda found: ipaddress.IPv4Address(found["ipv4Address"]).packed,
        lambda wire: {"ipv4Address": str(ipaddress.IPv4Address(wire.rest()))},
    ),
    "AAAA": (
        "AAAARecords",
        False,
        lambda found: ipaddress.IPv6Address(found["ipv6Address"]).packed,
        lambda wire: {"ipv6Address": str(ipaddress.IPv6Address(wire.rest()))},
    ),
    "CAA": (
        "caaRecords",
        False,
        lambda found: _numbers(found, flags=1) + _string(found["tag"]) + found["value"].encode("ascii"),
        lambda wire: {"flags": wire.number(1), "tag": wire.text(), "value": _ascii(wire.rest())},
    ),
    "CNAME": ("CNAMERecord", True, lambda found: wire_name(found["cname"]), lambda wire: {"cname": wire.name()}),
    "DS": ("DSRecords", False, _read_ds, _write_ds),
    "MX": (
        "MXRecords",
        False,
        lambda found: _numbers(found, preference=2) + wire_name(found["exchange"]),
        lambda wire: {"preference": wire.number(2), "exchange": wire.name()},
    ),
    "NAPTR": ("NAPTRRecords", False, _read_naptr, _write_naptr),
    "NS": ("NSRecords", False, lambda found: wire_name(found["nsdname"]), lambda wire: {"nsdname": wire.name()}),
    "PTR": ("PTRRecords", False, lambda found: wire_name(found["ptrdname"]), lambda wire: {"ptrdname": wire.name()}),
    "SOA": ("SOARecord", True, _read_soa, _write_soa),
    "SRV": (
        "SRVRecords",
        False,
        lambda found: _numbers(found, priority=2, weight=2, port=2) + wire_name(found["target"]),
        lambda wire: {
            **{name: wire.number(2) for name in ("priority", "weight", "port")},
            "target": wire.name(),
        },
    ),
    "TLSA": ("TLSARecords", False, _read_tlsa, _write_tlsa),
    "TXT": (
        "TXTRecords",
        False,
        lambda found: b"".join(_string(part) for part in found["value"]),
        lambda wire: {"value": wire.texts()},
    ),
}
"""Of each type: its field, whether that has one value alone, and what reads and writes a value."""
