r"""Route 53's words for names, values and record sets, and ours.

Route 53 prints as zone files do, but escapes in octal: its ``\052`` is the ``\042`` of everybody else, an asterisk.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from shiftable.dns.driver import Policy, RecordSet, labels, rdata_of, text_of

__all__ = [
    "dns_name",
    "is_alias",
    "listed_values",
    "native_name",
    "native_record",
    "native_values",
    "record_of",
    "unfit",
]

_PLAIN = re.compile(r"(?:[a-z0-9_-]+\.)+")
_OCTAL = re.compile(r"\\(?:([0-3][0-7]{2})|.)", re.DOTALL)
_DECIMAL = re.compile(r"\\(?:(\d{3})|(.))", re.DOTALL)
_COMMON = frozenset({"Name", "Type", "TTL", "ResourceRecords", "SetIdentifier"})
_ROUTING = frozenset(
    {
        *("AliasTarget", "CidrRoutingConfig", "Failover", "GeoLocation", "GeoProximityLocation", "HealthCheckId"),
        *("MultiValueAnswer", "Region", "ResourceRecords", "Weight"),
    }
)
_LONGEST_VALUE = 4000  # Route 53 API reference, ResourceRecord
_MARK = "route53"  # begins a revision of ours: the values as Route 53 has them, since a deletion must repeat them


def native_name(name: str) -> str:
    """Return a canonical name as Route 53 takes it."""
    if _PLAIN.fullmatch(name):
        return name
    return "".join(f"{'*' if label == b'*' else _escaped(label)}." for label in labels(name))


def _escaped(label: bytes) -> str:
    return "".join(f"{byte:c}" if f"{byte:c}" in _UNESCAPED else f"\\{byte:03o}" for byte in label)


_UNESCAPED = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")


def dns_name(native: str) -> str:
    """Return a name of Route 53's with the escapes of zone files."""
    return _to_decimal(native)


def native_values(record: RecordSet) -> list[str]:
    """Return the values as Route 53 takes them."""
    return [_to_octal(text_of(record.type, rdata)) for rdata in record.rdatas]


def listed_values(record: RecordSet) -> list[str]:
    """Return the values as Route 53 listed them, if it did: a deletion must repeat them to the letter."""
    mark, *values = (record.revision or "").split("\0")
    return values if mark == _MARK else native_values(record)


def native_record(record: RecordSet, values: list[str]) -> dict[str, Any]:
    """Return a record set as Route 53 takes it."""
    native: dict[str, Any] = {"Name": native_name(record.name), "Type": record.type}
    if record.policy is not None:
        native |= json.loads(record.policy.data)
        if record.policy.set_id is not None:
            native["SetIdentifier"] = record.policy.set_id
    if "AliasTarget" not in native:
        native["TTL"] = record.ttl
        if "ResourceRecords" not in native:
            native["ResourceRecords"] = [{"Value": value} for value in values]
    return native


def record_of(native: Mapping[str, Any]) -> RecordSet:
    """Read a record set of a listing. Values that nobody can parse make a policy, which is written back as it is."""
    kind, values = native["Type"], [entry["Value"] for entry in native.get("ResourceRecords", ())]
    own = {name: part for name, part in native.items() if name not in _COMMON}
    try:
        rdatas = tuple(rdata_of(kind, _to_decimal(value), ".") for value in values)
    except ValueError:
        rdatas = ()
        own["ResourceRecords"] = [{"Value": value} for value in values]
    set_id = native.get("SetIdentifier")
    policy = Policy(provider="aws", data=_canonical(own), set_id=set_id) if own or set_id is not None else None
    return RecordSet(
        name=dns_name(native["Name"]),
        type=kind,
        ttl=native.get("TTL", 0),
        rdatas=rdatas,
        policy=policy,
        revision="\0".join([_MARK, *values]),
    )


def is_alias(native: Mapping[str, Any]) -> bool:
    """Tell whether a native record set answers with what another one has."""
    return "AliasTarget" in native


def unfit(record: RecordSet) -> str | None:
    """Say why Route 53 has no words for a record set; ``None`` if it has."""
    if record.policy is not None:
        why = _unfit_policy(record, record.policy)
        if why is not None:
            return why
    if record.type == "NS" and labels(record.name)[:1] == (b"*",):
        return "a wildcard cannot be delegated (Route 53 API reference, ResourceRecordSet)"
    for value in native_values(record):
        if value.startswith("\\043"):  # the \# of RFC 3597
            return f"a value is not one of type {record.type}"
        if len(value) > _LONGEST_VALUE:
            return (
                f"a value has {len(value):,} characters; the limit is {_LONGEST_VALUE:,} (Route 53 API, ResourceRecord)"
            )
    return None


def _unfit_policy(record: RecordSet, policy: Policy) -> str | None:
    try:
        own = json.loads(policy.data)
    except ValueError as exc:
        return f"its policy is no JSON: {exc}"
    if not isinstance(own, dict) or _canonical(own) != policy.data:
        return "its policy must be a JSON object with sorted names and no spaces"
    if own.keys() - _ROUTING:
        unknown = ", ".join(sorted(own.keys() - _ROUTING))
        return f"its policy has what cannot be written: {unknown}; it can have {', '.join(sorted(_ROUTING))}"
    if "AliasTarget" in own and (record.ttl or record.rdatas):
        return "an alias has neither values nor a TTL of its own; give it none and 0"
    if "AliasTarget" not in own and not (record.rdatas or own.get("ResourceRecords")):
        return "it has no value"
    return None


def _canonical(own: Mapping[str, Any]) -> str:
    return json.dumps(own, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _to_decimal(text: str) -> str:
    if "\\" not in text:
        return text
    return _OCTAL.sub(lambda match: f"\\{int(match[1], 8):03d}" if match[1] else match[0], text)


def _to_octal(text: str) -> str:
    r"""Turn ``\DDD`` into octal; ``\"`` and ``\\`` of strings stay, other characters that are escaped become octal."""
    if "\\" not in text:
        return text
    return _DECIMAL.sub(_octal, text)


def _octal(match: re.Match[str]) -> str:
    if match[1]:
        return f"\\{int(match[1]):03o}"
    return match[0] if match[2] in '"\\' else f"\\{ord(match[2]):03o}"
