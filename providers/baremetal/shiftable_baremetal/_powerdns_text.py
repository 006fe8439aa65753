"""How PowerDNS writes values, names and types, where it differs from zone files. Measured with 4.7.3.

It takes nothing but its own spelling and answers the rest with 422 "Not in expected format": no blanks within
hexadecimal and base64, parameters of SVCB in quotes or not by their key, all lengths of a LOC, numbers in a CERT, and
no IPv6 address that ends in an IPv4 one, although it prints such itself.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from shiftable.dns.driver import Policy, RecordSet, rdata_of, text_of
from shiftable_baremetal._axfr import type_number

__all__ = ["content_of", "gone", "holds_name", "record_set", "rrset", "unfit"]

_OWN = frozenset({"ALIAS", "LUA"})
"""Types that it answers by rules of its own."""

_READ_AS = {"ADDR": "TYPE65400"}
"""Numbers that it has taken for itself, and how it calls them; 65401 and 65402 are ``ALIAS`` and ``LUA``."""

_TAKEN = frozenset({"TYPE65401", "TYPE65402", "ADDR"})

_KNOWN = frozenset(
    (
        *("A", "AAAA", "AFSDB", "APL", "CAA", "CDNSKEY", "CDS", "CERT", "CNAME", "CSYNC", "DHCID", "DLV", "DNAME"),
        *("DNSKEY", "DS", "EUI48", "EUI64", "HINFO", "HTTPS", "IPSECKEY", "KEY", "KX", "L32", "L64", "LOC", "LP"),
        *("MINFO", "MR", "MX", "NAPTR", "NID", "NS", "NSEC", "NSEC3", "NSEC3PARAM", "OPENPGPKEY", "PTR", "RKEY"),
        *("RP", "RRSIG", "SIG", "SMIMEA", "SOA", "SPF", "SRV", "SSHFP", "SVCB", "TLSA", "TXT", "URI"),
    )
)
"""Types whose values it has its own text for; all others are numbers with bytes (RFC 3597)."""

_WHOLE = {
    **dict.fromkeys(("DHCID", "OPENPGPKEY"), 0),
    "SSHFP": 2,
    **dict.fromkeys(("CDNSKEY", "CDS", "DLV", "DNSKEY", "DS", "KEY", "RKEY", "SMIMEA", "TLSA"), 3),
    "IPSECKEY": 4,
}
"""How many fields come before the one that dnspython prints in pieces."""

_BARE = frozenset({"alpn", "ipv4hint", "ipv6hint", "mandatory", "no-default-alpn", "port"})
_QUOTED = frozenset({"ech"})
_PARAMETERS = ("mandatory", "alpn", "no-default-alpn", "port", "ipv4hint", "ech", "ipv6hint", "dohpath", "ohttp")
_PARAMETER = re.compile(r'([a-z0-9-]+)(?:="((?:[^"\\]|\\.)*)")?', re.DOTALL)

_RAW = re.compile(r"\\# (\d+) ((?:[0-9a-f]{2})+)")
_NAME = re.compile(r"(?:\*\.)?(?:[a-z0-9_/-]+\.)+")
_HOST = re.compile(rb"(?!-)[A-Za-z0-9-]+(?<!-)")
_TARGETS = {"MX": 2, "NS": 0, "SRV": 6}


def holds_name(name: str) -> bool:
    """Tell whether it can hold a name: letters, digits, ``-``, ``_`` and ``/``, and a ``*`` in front."""
    return _NAME.fullmatch(name) is not None


def unfit(record: RecordSet) -> str | None:
    """Say why it would refuse a record set, beside its name and its TTL."""
    if record.type in _TAKEN or (record.type in _OWN and record.policy is None):
        return f"PowerDNS uses the type {record.type} for itself"
    at = _TARGETS.get(record.type)
    for rdata in record.rdatas if at is not None else ():
        if not _is_host(rdata[at:]):
            return f"the target of {record.type} {text_of(record.type, rdata)} must be the name of a host"
    return None


def _is_host(wire: bytes) -> bool:
    """Tell whether a name in wire form is a host's, or the root."""
    at = 0
    while wire[at]:
        if not _HOST.fullmatch(wire[at + 1 : at + 1 + wire[at]]):
            return False
        at += 1 + wire[at]
    return True


# values


def content_of(kind: str, rdata: bytes) -> str:
    """Return a value as it wants it."""
    if kind not in _KNOWN:
        return f"\\# {len(rdata)} {rdata.hex()}".rstrip()
    text = text_of(kind, rdata)
    respelt = _RESPELT.get(kind)
    return text if respelt is None or text.startswith("\\#") else respelt(kind, rdata, text)


def _certificate(_kind: str, rdata: bytes, _text: str) -> str:
    numbers = (rdata[:2], rdata[2:4], rdata[4:5])
    return " ".join([*(str(int.from_bytes(each)) for each in numbers), base64.b64encode(rdata[5:]).decode()])


def _address(_kind: str, rdata: bytes, text: str) -> str:
    if "." not in text:
        return text
    return ":".join(f"{int.from_bytes(rdata[at : at + 2]):x}" for at in range(0, 16, 2))


def _location(_kind: str, _rdata: bytes, text: str) -> str:
    return f"{text} 1.00m 10000.00m 10.00m" if text.count("m") == 1 else text


def _whole(kind: str, _rdata: bytes, text: str) -> str:
    fields, before = text.split(" "), _WHOLE[kind]
    return " ".join([*fields[:before], "".join(fields[before:])])


def _service(_kind: str, _rdata: bytes, text: str) -> str:
    """Spell the parameters of an SVCB: some in quotes, some not, and the later ones by their number."""
    priority, target, *rest = text.split(" ", 2)
    return " ".join([priority, target, *map(_parameter, _PARAMETER.finditer(rest[0] if rest else ""))])


def _parameter(found: re.Match[str]) -> str:
    name, value = found[1], found[2]
    if name == "mandatory" and value is not None:
        value = ",".join(_key(each) for each in value.split(","))
    if name in _BARE:
        return name if value is None else f"{name}={value}"
    return f'{_key(name)}="{value or ""}"'


def _key(name: str) -> str:
    if name in _BARE or name in _QUOTED or name not in _PARAMETERS:
        return name
    return f"key{_PARAMETERS.index(name)}"


_RESPELT: Mapping[str, Callable[[str, bytes, str], str]] = {
    "AAAA": _address,
    "CERT": _certificate,
    "HTTPS": _service,
    "LOC": _location,
    "SVCB": _service,
    **dict.fromkeys(_WHOLE, _whole),
}


# record sets


def rrset(record: RecordSet) -> dict[str, Any]:
    """Return a record set as the API wants it."""
    more: dict[str, Any]
    if record.policy is not None:
        more = {"comments": [], **json.loads(record.policy.data)}
    else:
        kind = record.type
        more = {"records": [{"content": content_of(kind, rdata), "disabled": False} for rdata in record.rdatas]}
    return {"name": record.name, "type": _type_of(record), "ttl": record.ttl, "changetype": "REPLACE", **more}


def gone(record: RecordSet) -> dict[str, Any]:
    """Return what deletes a record set."""
    return {"name": record.name, "type": _type_of(record), "changetype": "DELETE"}


def _type_of(record: RecordSet) -> str:
    if record.type in _KNOWN or record.type in _OWN:
        return record.type
    try:
        return f"TYPE{type_number(record.type)}"
    except ValueError:  # of a server that is newer than dnspython
        return record.type


def record_set(item: Mapping[str, Any], provider: str) -> RecordSet:
    """Read a record set. One that is answered by rules, switched off or not understood comes with a policy."""
    name, ttl, records = item["name"], item["ttl"], item["records"]
    kind = _READ_AS.get(item["type"], item["type"])
    if kind not in _OWN and True not in [each["disabled"] for each in records]:
        try:
            rdatas = [_rdata(kind, each["content"]) for each in records]
            return RecordSet(name=name, type=kind, ttl=ttl, rdatas=rdatas)
        except ValueError:
            pass
    kept = sorted(
        ({"content": r["content"], "disabled": r["disabled"]} for r in records), key=lambda r: str(r["content"])
    )
    data: dict[str, Any] = {"records": kept}
    if item.get("comments"):
        data["comments"] = sorted(item["comments"], key=lambda each: json.dumps(each, sort_keys=True))
    policy = Policy(provider=provider, data=json.dumps(data, sort_keys=True, separators=(",", ":")))
    return RecordSet(name=name, type=kind, ttl=ttl, rdatas=(), policy=policy)


def _rdata(kind: str, content: str) -> bytes:
    """Read one value. Bytes are taken as they are, whether or not their type would have them."""
    raw = _RAW.fullmatch(content) if content.startswith("\\#") else None
    if raw is not None and len(raw[2]) == 2 * int(raw[1]):
        return bytes.fromhex(raw[2])
    return rdata_of(kind, content, ".")
