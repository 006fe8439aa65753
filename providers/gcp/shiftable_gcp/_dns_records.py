"""Record sets as Cloud DNS tells them and takes them, and as ours.

What it answers by rules of its own comes with a ``Policy``, whose ``data`` is a JSON object of those fields of its
``ResourceRecordSet`` that are neither name, type nor TTL: ``{"routingPolicy":{…}}``, or ``{"rrdatas":[…]}`` of an
``ALIAS``. The values of such a record set are all that a routing policy may answer with; an ``ALIAS`` has none.
"""

from __future__ import annotations

import json
import string
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from shiftable.dns.driver import Policy, RecordSet, absolute, canonical_rdata, rdata_of

__all__ = ["ALIAS", "PROVIDER", "data_of", "policy_fields", "policy_values", "read", "size", "told"]

PROVIDER = "gcp"
ALIAS = "ALIAS"
_OUTPUT_ONLY = frozenset({"kind", "signatureRrdatas"})
_PLAIN = frozenset(string.ascii_letters + string.digits + "-_.*")
_VALUES = frozenset({"externalEndpoints", "rrdatas"})
_RULES = ("routingPolicy", "rrdatas", "type")


def read(sent: Mapping[str, Any]) -> RecordSet:
    """Read a record set that Cloud DNS tells. One that cannot be understood has a policy that holds it as it is."""
    name, kind, ttl = _owner(str(sent["name"])), str(sent["type"]), int(sent.get("ttl", 0))
    texts = [str(text) for text in sent.get("rrdatas") or ()]
    if not sent.get("routingPolicy") and kind != ALIAS:
        try:
            rdatas = tuple(rdata_of(kind, text, ".") for text in texts)
            return RecordSet(name=name, type=kind, ttl=ttl, rdatas=rdatas, revision=json.dumps(texts))
        except ValueError:
            pass
    rules = {rule: sent[rule] for rule in ("routingPolicy", "rrdatas") if sent.get(rule)}
    try:
        return _routed(name, kind, ttl, rules)
    except ValueError:  # the type is none that has a number: it gets a private one (RFC 6895, 3.1)
        return _routed(name, f"TYPE{65_280 + zlib.crc32(kind.encode()) % 254}", ttl, rules | {"type": kind})


def _routed(name: str, kind: str, ttl: int, rules: Mapping[str, Any]) -> RecordSet:
    policy = Policy(provider=PROVIDER, data=data_of(rules))
    return RecordSet(name=name, type=kind, ttl=ttl, rdatas=policy_values(kind, rules), policy=policy)


def _owner(name: str) -> str:
    """Return the name of a record set; one that no zone file could hold is escaped."""
    try:
        return absolute(name, ".")
    except ValueError:
        plain = (chr(byte) if chr(byte) in _PLAIN else f"\\{byte:03d}" for byte in name.encode())
        return absolute("".join(plain), ".")


def told(record: RecordSet, *, listed: bool = False) -> dict[str, Any]:
    """Return a record set as Cloud DNS takes it.

    Args:
        listed: spell the values as Cloud DNS did, where it is known how.
    """
    facts: dict[str, Any] = {"name": record.name, "type": record.type, "ttl": record.ttl}
    if record.policy is not None:
        return facts | policy_fields(record.policy.data)
    return facts | {"rrdatas": list((listed and _spelt(record)) or record.texts)}


def _spelt(record: RecordSet) -> list[str] | None:
    """Return the values as Cloud DNS spelt them, unless that is another's revision or one of other values."""
    texts = _noted(record)
    try:
        return texts if RecordSet.of(record.name, record.type, texts, ttl=record.ttl) == record else None
    except ValueError:
        return None


def _noted(record: RecordSet) -> list[str]:
    """Return what a record set's revision says of its values; it may be another's, or not be of these values."""
    try:
        texts = json.loads(record.revision or "[]")
    except ValueError:
        return []
    return texts if isinstance(texts, list) and all(isinstance(text, str) for text in texts) else []


def size(record: RecordSet | None) -> int:
    """Return how many bytes of a change's rdata a record set takes, at most."""
    if record is None:
        return 0
    if record.policy is not None:
        return len(record.policy.data.encode())
    return max(sum(map(len, values)) for values in (record.texts, record.rdatas, _noted(record)))


def policy_fields(data: str) -> dict[str, Any]:
    """Return the fields that a policy stands for.

    Raises:
        ValueError: it is none that Cloud DNS takes, or not in its one spelling.
    """
    fields = json.loads(data)
    if not isinstance(fields, dict) or not fields or not fields.keys() <= set(_RULES):
        raise ValueError(f"a policy is a JSON object of some of {', '.join(_RULES)}")
    if data_of(fields) != data:
        raise ValueError(f"write the policy as {data_of(fields)}")
    return fields


def policy_values(kind: str, fields: Mapping[str, Any]) -> tuple[bytes, ...]:
    """Return all values that a routing policy may answer with, each once; none where they cannot stand together."""
    try:
        wires = [rdata_of(kind, text, ".") for text in _texts(_pruned(fields.get("routingPolicy")))]
    except ValueError:
        return ()
    found = {canonical_rdata(kind, wire): wire for wire in wires}
    return () if kind == "CNAME" and len(found) > 1 else tuple(found.values())


def _texts(value: Any) -> Iterator[str]:  # noqa: ANN401  any JSON
    """Yield what stands under the names that values have in a routing policy."""
    if isinstance(value, Mapping):
        for name, each in sorted(value.items()):
            if name in _VALUES and isinstance(each, list):
                yield from map(str, each)
            else:
                yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def data_of(fields: Mapping[str, Any]) -> str:
    """Return a policy in its one spelling: without what only answers have, sorted, without blanks."""
    return json.dumps(_pruned(fields), sort_keys=True, separators=(",", ":"))


def _pruned(value: Any) -> Any:  # noqa: ANN401  any JSON
    if isinstance(value, Mapping):
        return {name: _pruned(each) for name, each in value.items() if name not in _OUTPUT_ONLY}
    if isinstance(value, list):
        return [_pruned(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
