"""What the double's Cloud DNS takes for a record set: names, types, rdata as text, routing policies."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import dns.exception
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from shiftable_gcp._state import Refused

__all__ = ["TYPES", "StoredSet", "invalid", "is_name", "quota_exceeded", "read_set"]

TYPES = frozenset(
    {"A", "AAAA", "ALIAS", "CAA", "CNAME", "DNSKEY", "DS", "HTTPS", "IPSECKEY", "MX", "NAPTR", "NS", "PTR", "SOA"}
    | {"SPF", "SRV", "SSHFP", "SVCB", "TLSA", "TXT"}
)
_ROUTED = frozenset({"A", "AAAA", "CNAME", "MX", "SRV", "TXT"})
_TEXTS = frozenset({"SPF", "TXT"})
_SINGLE = frozenset({"ALIAS", "CNAME", "SOA"})
_APEX_ONLY = frozenset({"ALIAS", "SOA"})
_NAME = re.compile(r"(?:\*\.)?(?:[A-Za-z0-9_-]{1,63}\.)+")
_LONGEST_NAME = 254  # as text with its dot: 255 bytes of wire
_MAX_TTL = 2**31 - 1
_OUTPUT_ONLY = frozenset({"kind", "signatureRrdatas"})


@attrs.frozen
class StoredSet:
    """One record set as it is held and told.

    Args:
        values: what the rdata means, for comparison.
        policy: the routing policy, as it was sent.
    """

    name: str
    type: str
    ttl: int
    rrdatas: tuple[str, ...]
    values: frozenset[Any] = attrs.field(repr=False)
    policy: Mapping[str, Any] | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What there is one of."""
        return self.name, self.type

    @property
    def size(self) -> int:
        """Bytes of rdata, of a routing policy too."""
        return sum(len(text) for text in (*self.rrdatas, *_policy_values(self.policy or {})))

    def told(self) -> dict[str, Any]:
        """Return it as the API tells it."""
        facts: dict[str, Any] = {"name": self.name, "type": self.type, "ttl": self.ttl}
        return facts | ({"routingPolicy": self.policy} if self.policy else {"rrdatas": list(self.rrdatas)})

    def matches(self, other: StoredSet, *, literally: bool) -> bool:
        """Tell whether a deletion names exactly this.

        Args:
            literally: by the letter, not by what it means.
        """
        same = (self.key, self.ttl, self.policy) == (other.key, other.ttl, other.policy)
        return same and (self.rrdatas == other.rrdatas if literally else self.values == other.values)


def invalid(place: str, value: object, reason: str = "invalid") -> Refused:
    """Refuse a value, naming its place in the request."""
    return Refused(400, reason, "INVALID_ARGUMENT", f"Invalid value for '{place}': '{value}'")


def quota_exceeded(name: str, limit: int, place: str = "") -> Refused:
    """Refuse what would be more than a quota allows."""
    where = f" by '{place}'" if place else ""
    return Refused(403, "quotaExceeded", "PERMISSION_DENIED", f"Quota '{name}' exceeded{where}. Limit: {limit}")


def is_name(text: object) -> bool:
    """Tell whether it is a fully qualified name that the service takes."""
    return isinstance(text, str) and len(text) <= _LONGEST_NAME and _NAME.fullmatch(text) is not None


def read_set(sent: Mapping[str, Any], zone: str, place: str, quota: Mapping[str, int]) -> StoredSet:
    """Return a record set that was sent, or refuse it for what can be seen of it alone.

    Args:
        place: where in the request it stands, ``entity.change.additions[0]``.
    """
    name, kind, ttl = sent.get("name"), sent.get("type"), sent.get("ttl", 0)
    if not is_name(name) or not f".{str(name).lower()}".endswith(f".{zone}"):
        raise invalid(f"{place}.name", name)
    if kind not in TYPES:
        raise invalid(f"{place}.type", kind)
    if type(ttl) is not int or not 0 <= ttl <= _MAX_TTL:
        raise invalid(f"{place}.ttl", ttl)
    owner, policy = str(name).lower(), sent.get("routingPolicy")
    texts: tuple[str, ...] = ()
    if policy is not None:
        policy = _read_policy(policy, str(kind), place, quota)
    if policy is None or sent.get("rrdatas"):
        texts = tuple(sent.get("rrdatas") or ())
        if not texts or policy is not None:
            raise invalid(f"{place}.rrdata", "<empty>" if not texts else "with a routing policy")
    parsed = [_parsed(str(kind), text, f"{place}.rrdata[{number}]") for number, text in enumerate(texts)]
    made = StoredSet(
        owner,
        str(kind),
        ttl,
        tuple(_echoed(str(kind), text, value) for text, value in zip(texts, parsed, strict=True)),
        frozenset(parsed),
        policy,
    )
    _check_rules(made, zone, place, quota)
    return made


def _check_rules(made: StoredSet, zone: str, place: str, quota: Mapping[str, int]) -> None:
    """Refuse what DNS or the service does not allow of such a set."""
    if len(made.values) < len(made.rrdatas):
        raise invalid(f"{place}.rrdata", "duplicate")
    if made.type in _SINGLE and len(made.rrdatas) > 1:
        message = f"The resource record set '{place}' is only permitted to have one record because it is of type"
        raise Refused(400, "invalidRecordCount", "INVALID_ARGUMENT", f"{message} '{made.type}'.")
    if made.type in _APEX_ONLY and made.name != zone:
        message = f"The resource record set '{place}' is invalid because a zone must contain exactly one resource"
        raise Refused(
            400, "invalidZoneApex", "INVALID_ARGUMENT", f"{message} record set of type '{made.type}' at the apex."
        )
    if made.type == "CNAME" and made.name == zone:
        message = f"The resource record set '{place}' cannot exist at the zone apex."
        raise Refused(400, "recordTypeDisallowedAtZoneApex", "INVALID_ARGUMENT", message)
    if made.type == "NS" and made.name.startswith("*."):
        message = f"The resource record set '{place}' has the wrong type to be a wildcard."
        raise Refused(400, "wildcardNotAllowed", "INVALID_ARGUMENT", message)
    if made.type == "DNSKEY":  # only while a signed zone is taken over
        raise invalid(f"{place}.type", made.type)
    limits = {"resourceRecordsPerRrset": True, "nameserversPerDelegation": made.type == "NS"}
    for limit, counts in limits.items():
        if counts and len(made.rrdatas) > quota[limit]:
            raise quota_exceeded(limit, quota[limit], place)


def _parsed(kind: str, text: object, place: str) -> Any:  # noqa: ANN401  dnspython's
    """Read one rdata; names in it must be fully qualified."""
    if not isinstance(text, str) or not text.isascii() or text.lstrip().startswith("\\#"):
        raise invalid(place, text)
    number = dns.rdatatype.from_text("CNAME" if kind == "ALIAS" else kind)
    try:
        value = dns.rdata.from_text(dns.rdataclass.IN, number, text, relativize=False)
        value.to_wire()  # it cannot with a relative name
    except (dns.exception.DNSException, ValueError) as exc:
        raise invalid(place, text) from exc
    return value


def _echoed(kind: str, text: str, value: Any) -> str:  # noqa: ANN401  the same
    """Return an rdata as it is told: of text the words are quoted, all else is as it was sent."""
    return str(value.to_text()) if kind in _TEXTS else text


def _read_policy(policy: Any, kind: str, place: str, quota: Mapping[str, int]) -> Any:  # noqa: ANN401  any JSON
    """Return a routing policy, or refuse it."""
    place = f"{place}.routingPolicy"
    if not isinstance(policy, dict):
        raise invalid(place, policy)
    policy = _without_output(policy)
    ways = [way for way in ("wrr", "geo", "primaryBackup") if way in policy]
    if len(ways) != 1 or kind not in _ROUTED:
        raise invalid(place, ", ".join(ways) if kind in _ROUTED else kind)
    way = policy[ways[0]]
    items = (way.get("backupGeoTargets", {}) if ways[0] == "primaryBackup" else way).get("items", [])
    if not items or (ways[0] == "primaryBackup" and not way.get("primaryTargets")):
        raise invalid(f"{place}.{ways[0]}", "<empty>")
    if len(items) > quota["itemsPerRoutingPolicy"]:
        raise quota_exceeded("itemsPerRoutingPolicy", quota["itemsPerRoutingPolicy"], place)
    for number, item in enumerate(items):
        needed = "weight" if ways[0] == "wrr" else "location"
        if needed not in item or not (item.get("rrdatas") or item.get("healthCheckedTargets")):
            raise invalid(f"{place}.{ways[0]}.item[{number}]", item)
        if ways[0] == "wrr" and item["weight"] < 0:
            raise invalid(f"{place}.wrr.item[{number}].weight", item["weight"])
    for text in _policy_values(policy):
        _parsed(kind, text, f"{place}.rrdata")
    return policy


def _policy_values(value: Any) -> Iterator[str]:  # noqa: ANN401  any JSON
    """Yield all rdata in a routing policy."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            if name in {"rrdatas", "externalEndpoints"}:
                yield from each
            else:
                yield from _policy_values(each)
    elif isinstance(value, list):
        for each in value:
            yield from _policy_values(each)


def _without_output(value: Any) -> Any:  # noqa: ANN401  the same
    """Leave out what only answers have."""
    if isinstance(value, dict):
        return {name: _without_output(each) for name, each in value.items() if name not in _OUTPUT_ONLY}
    return [_without_output(each) for each in value] if isinstance(value, list) else value
