"""The domains and records of the double of Linode, with the limits and oddities of Linode's.

What Linode takes is known from its API reference, and from what dnscontrol and linode_api4 met there. Its own NS and
the SOA of a domain are in no listing. A TTL that is no step is rounded, flags of a CAA are dropped.
"""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Any

import attrs

from shiftable.testing.harness import Request
from shiftable_libcloud._double_state import Refused, Routed, Routes, Row

__all__ = ["LinodeDomain", "LinodeDomains"]

_NAME = re.compile(r"(?:[a-z0-9_-]{1,63}\.)+(?:[a-z]{2,16}|xn--[a-z0-9]+)", re.IGNORECASE)
_OWNER = re.compile(r"|\*|(?:\*\.)?(?:_?[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?\.?)+", re.IGNORECASE)
_MAIL = re.compile(r"|\*|(?:\*\.)?[a-z](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z](?:[a-z0-9-]*[a-z0-9])?)*", re.IGNORECASE)
_HOST = re.compile(r"(?:_?[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?\.)+_?[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?", re.IGNORECASE)
_TYPES = ("A", "AAAA", "NS", "MX", "CNAME", "TXT", "SRV", "PTR", "CAA")
_STEPS = (300, 3600, 7200, 14400, 28800, 57600, 86400, 172800, 345600, 604800, 1209600, 2419200)
_NUMBERS = {"MX": ("priority",), "SRV": ("priority", "weight", "port")}
_FIELDS = ("priority", "weight", "port", "service", "protocol", "tag")
_TIME = "2018-01-01T00:01:01"
_LARGEST_PAGE, _LEAST_PAGE, _LONGEST_NAME, _HIGHEST_PRIORITY = 500, 25, 100, 255


def _refused(reason: str, field: str = "") -> Refused:
    return Refused(400, field, reason)


def _missing() -> Refused:
    return Refused(404, "", "Not found")


@attrs.define
class LinodeDomain:
    """One domain: its settings and its records by id, as the API tells them."""

    told: Row
    records: dict[int, Row] = attrs.Factory(dict)


@attrs.define
class LinodeDomains:
    """Answers for domains and records.

    Attributes:
        all: by name.
        forgets_ttl: a record that is made does not keep its TTL, as dnscontrol saw it.
    """

    all: dict[str, LinodeDomain] = attrs.Factory(dict)
    forgets_ttl: bool = False
    _numbers: int = 40_000_000
    routes: Routes = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        domain, record = r"/v4/domains/(\d+)", r"/v4/domains/(\d+)/records/(\d+)"
        self.routes = Routes(
            (
                ("GET", "/v4/domains", "domains.list", "domains", self._list),
                ("POST", "/v4/domains", "domains.create", "", self._create),
                ("DELETE", domain, "domains.delete", "", self._delete),
                ("GET", f"{domain}/records", "records.list", "records", self._list_records),
                ("POST", f"{domain}/records", "records.create", "", self._create_record),
                ("PUT", record, "records.update", "", self._update_record),
                ("DELETE", record, "records.delete", "", self._delete_record),
            )
        )

    def find(self, request: Request) -> Routed | None:
        """Return what a request is for; a listing of one name is ``domains.get``."""
        found = self.routes.find(request)
        wanted = request.headers.get("X-Filter")
        if found is None or wanted is None:
            return found
        return attrs.evolve(found, operation="domains.get", query={**found.query, **json.loads(wanted)})

    def forget(self) -> None:
        """Delete everything."""
        self.all.clear()
        self.forgets_ttl = False

    def add(self, domain: str, name: str, type: str, data: str, **more: Any) -> int:  # noqa: ANN401  JSON
        """Make a record as another tool would, unchecked, and return its id."""
        self._numbers += 1
        self.all[domain].records[self._numbers] = {
            "id": self._numbers,
            "type": type,
            "name": "" if name == "@" else name,
            "target": data,
            **dict.fromkeys(_FIELDS),
            "ttl_sec": more.pop("ttl", 0),
            "created": _TIME,
            "updated": _TIME,
            **more,
        }
        return self._numbers

    def paged(self, routed: Routed, rows: list[Row], most: int) -> Row:
        """Return one page of a listing, of ``most`` rows, whatever is asked for."""
        page, asked = int(routed.query.get("page", 1)), int(routed.query.get("page_size", 100))
        if not _LEAST_PAGE <= asked <= _LARGEST_PAGE:
            raise _refused(f"Must be {_LEAST_PAGE}-{_LARGEST_PAGE}", "page_size")
        size = min(asked, most)
        pages = max(1, -(-len(rows) // size))
        if not 1 <= page <= pages:
            raise _missing()
        return {"data": rows[(page - 1) * size : page * size], "page": page, "pages": pages, "results": len(rows)}

    # domains

    def _list(self, call: Routed) -> list[Row]:
        return [each.told for name, each in self.all.items() if call.query.get("domain", name) == name]

    def _create(self, call: Routed) -> Row:
        name = str(call.body.get("domain") or "").lower()
        if not _NAME.fullmatch(name):
            raise _refused("Domain is not valid", "domain")
        if call.body.get("type") != "master" or not call.body.get("soa_email"):
            raise _refused("soa_email required for master domains", "soa_email")
        if name in self.all:
            raise _refused("DNS zone already exists.", "domain")
        self._numbers += 1
        told = {"id": self._numbers, "domain": name, "type": "master", "status": "active", "ttl_sec": 0}
        more = {"soa_email": call.body["soa_email"], "refresh_sec": 0, "retry_sec": 0, "expire_sec": 0, "tags": []}
        self.all[name] = LinodeDomain({**told, **more})
        return self.all[name].told

    def _delete(self, call: Routed) -> Row:
        del self.all[self._domain(call).told["domain"]]
        return {}

    # records

    def _list_records(self, call: Routed) -> list[Row]:
        return list(self._domain(call).records.values())

    def _create_record(self, call: Routed) -> Row:
        home = self._domain(call)
        fields = self._checked(home, call.body, None)
        if self.forgets_ttl:
            fields["ttl_sec"] = 0
        number = self.add(home.told["domain"], fields.pop("name"), fields.pop("type"), fields.pop("target"), **fields)
        return home.records[number]

    def _update_record(self, call: Routed) -> Row:
        home, row = self._domain(call), self._record(call)
        row.update(self._checked(home, {**row, **call.body, "type": row["type"]}, row["id"]))
        return row

    def _delete_record(self, call: Routed) -> Row:
        del self._domain(call).records[self._record(call)["id"]]
        return {}

    def _domain(self, call: Routed) -> LinodeDomain:
        found = next((each for each in self.all.values() if str(each.told["id"]) == call.names[0]), None)
        if found is None:
            raise _missing()
        return found

    def _record(self, call: Routed) -> Row:
        row = self._domain(call).records.get(int(call.names[1]))
        if row is None:
            raise _missing()
        return row

    def _checked(self, home: LinodeDomain, body: Row, id: int | None) -> Row:
        """Return the fields of a record as they are kept."""
        kind, target = body.get("type"), body.get("target")
        if kind not in _TYPES:
            raise _refused("Must be one of A, AAAA, NS, MX, CNAME, TXT, SRV, PTR, CAA", "type")
        if not isinstance(target, str):
            raise _refused("target is required", "target")
        fields: Row = dict.fromkeys(_FIELDS)
        name = self._service(body, fields) if kind == "SRV" else str(body.get("name") or "").lower()
        _require_name(kind, name)
        if kind == "CAA":
            fields["tag"] = body.get("tag")
            if fields["tag"] not in {"issue", "issuewild", "iodef"}:
                raise _refused("Must be one of issue, issuewild, iodef", "tag")
        fields |= {field: _number(body, field) for field in _NUMBERS.get(kind, ())}
        others = [row for row in home.records.values() if row["name"] == name and row["id"] != id]
        if any("CNAME" in {row["type"], kind} for row in others):
            raise _refused("A CNAME cannot stand beside other records of its name", "name")
        ttl = _step(int(body.get("ttl_sec") or 0))
        return {**fields, "type": kind, "name": name, "target": _kept(home, kind, target), "ttl_sec": ttl}

    def _service(self, body: Row, fields: Row) -> str:
        service, protocol = str(body.get("service") or ""), str(body.get("protocol") or "")
        service, protocol = service.removeprefix("_"), protocol.removeprefix("_")
        if not service:
            raise _refused("service is required", "service")
        if protocol.partition(".")[0] not in {"tcp", "udp"}:
            raise _refused("Please select a valid protocol ('udp', 'tcp')", "protocol")
        fields |= {"service": f"_{service}", "protocol": f"_{protocol}"}
        return f"_{service}._{protocol}".lower()


def _require_name(kind: str, name: str) -> None:
    if len(name) > _LONGEST_NAME or not (_MAIL if kind == "MX" else _OWNER).fullmatch(name):
        raise _refused("Invalid name", "name")
    if kind == "NS" and name.startswith("*"):
        raise _refused("Wildcard NS records are not supported", "name")


def _number(body: Row, field: str) -> int:
    value = body.get(field)
    if not isinstance(value, int) or not 0 <= value <= (_HIGHEST_PRIORITY if field == "priority" else 65535):
        raise _refused(f"{field} is not valid", field)
    return value


def _step(ttl: int) -> int:
    return ttl and next((step for step in _STEPS if ttl <= step), _STEPS[-1])


def _kept(home: LinodeDomain, kind: str, target: str) -> str:
    if kind in {"A", "AAAA"}:
        try:
            return str(ipaddress.IPv4Address(target) if kind == "A" else ipaddress.IPv6Address(target))
        except ValueError as exc:
            raise _refused(f"Invalid {kind} address", "target") from exc
    if kind in {"TXT", "CAA"}:
        if not target:
            raise _refused("target is required", "target")
        return target
    bare = target.removesuffix(".")
    if kind == "SRV" and "." not in bare and not target.endswith("."):
        bare = f"{bare}.{home.told['domain']}"
    if not _HOST.fullmatch(bare):
        raise _refused("Invalid hostname", "target")
    return bare
