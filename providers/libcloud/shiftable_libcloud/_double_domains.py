"""The double's domains and their records, with the limits and oddities of DigitalOcean's.

A record is written with a dot behind the names in it and read without; the zone itself is read as ``@``; a new domain
has no zone file yet. What DigitalOcean takes is known from its reference and its OpenAPI description, and from what
octoDNS, dnscontrol and external-dns met there.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import attrs

from shiftable_libcloud._double_state import Routed, Routes, Row, missing, unprocessable

__all__ = ["Domain", "Domains"]

_NAME = re.compile(r"(?=.{1,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{1,63}", re.IGNORECASE)
_OWNER = re.compile(r"@|(?:\*\.)?(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}|\*", re.IGNORECASE)
_TYPES = ("A", "AAAA", "CAA", "CNAME", "MX", "NS", "SRV", "TXT")
_HOSTS = ("CNAME", "MX", "NS", "SRV")
_NEEDED = {"MX": ("priority",), "SRV": ("priority", "port", "weight"), "CAA": ("flags", "tag")}
_FIELDS = ("priority", "port", "weight", "flags", "tag")
_TTL, _LEAST_TTL, _LONGEST_TEXT = 1800, 30, 512
_SERVERS = tuple(f"ns{number}.digitalocean.com" for number in (1, 2, 3))


@attrs.define
class Domain:
    """One domain: its records by id, as the API tells them."""

    name: str
    records: dict[int, Row] = attrs.Factory(dict)
    fresh: bool = True
    serial: int = 1

    def told(self) -> Row:
        """Return it as the API tells it."""
        return {"name": self.name, "ttl": None if self.fresh else _TTL, "zone_file": self._file()}

    def _file(self) -> str | None:
        if self.fresh:
            return None
        soa = f"{_SERVERS[0]}. hostmaster.{self.name}. {self.serial} 10800 3600 604800 {_TTL}"
        lines = [f"$ORIGIN {self.name}.", f"$TTL {_TTL}", f"{self.name}. IN SOA {soa}"]
        rows = (row for row in self.records.values() if row["type"] != "SOA")
        return "\n".join([*lines, *(f"{row['name']} {row['ttl']} IN {row['type']} {row['data']}" for row in rows), ""])


@attrs.define
class Domains:
    """Answers for domains and records.

    Attributes:
        all: by name.
    """

    all: dict[str, Domain] = attrs.Factory(dict)
    _numbers: int = 30_000_000
    routes: Routes = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        domain, record = "/v2/domains/([^/]+)", r"/v2/domains/([^/]+)/records/(\d+)"
        self.routes = Routes(
            (
                ("GET", "/v2/domains", "domains.list", "domains", self._list),
                ("POST", "/v2/domains", "domains.create", "", self._create),
                ("GET", domain, "domains.get", "", self._get),
                ("DELETE", domain, "domains.delete", "", self._delete),
                ("GET", f"{domain}/records", "records.list", "domain_records", self._list_records),
                ("POST", f"{domain}/records", "records.create", "", self._create_record),
                ("GET", record, "records.get", "", lambda call: {"domain_record": self._record(call)}),
                ("PUT", record, "records.update", "", self._update_record),
                ("DELETE", record, "records.delete", "", self._delete_record),
            )
        )

    def forget(self) -> None:
        """Delete everything."""
        self.all.clear()

    def add(self, domain: str, name: str, type: str, data: str, **more: Any) -> int:  # noqa: ANN401  JSON
        """Make a record as another tool would, unchecked, and return its id."""
        home = self.all[domain]
        self._numbers += 1
        fields = {field: more.get(field) for field in _FIELDS}
        home.records[self._numbers] = {
            "id": self._numbers,
            "type": type,
            "name": name,
            "data": data,
            "ttl": more.get("ttl", _TTL),
            **fields,
        }
        home.serial += 1
        return self._numbers

    # domains

    def _list(self, call: Routed) -> list[Row]:  # noqa: ARG002  as all handlers
        return [domain.told() for domain in self.all.values()]

    def _create(self, call: Routed) -> Row:
        name = str(call.body.get("name") or "").lower()
        if not _NAME.fullmatch(name):
            raise unprocessable(
                f"domain '{name}': Name Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)"
            )
        if name in self.all:
            raise unprocessable(f"domain '{name}': name already exists")
        self.all[name] = home = Domain(name)
        self.add(name, "@", "SOA", str(_TTL))
        for server in _SERVERS:
            self.add(name, "@", "NS", server)
        if call.body.get("ip_address"):
            self.add(name, "@", "A", call.body["ip_address"], ttl=3600)
        return {"domain": home.told()}

    def _get(self, call: Routed) -> Row:
        home = self._domain(call)
        home.fresh = False
        return {"domain": home.told()}

    def _delete(self, call: Routed) -> None:
        del self.all[self._domain(call).name]

    # records

    def _list_records(self, call: Routed) -> list[Row]:
        home = self._domain(call)
        owner = call.query.get("name")
        return [
            row
            for row in home.records.values()
            if owner in {None, home.name if row["name"] == "@" else f"{row['name']}.{home.name}"}
            and call.query.get("type") in {None, row["type"]}
        ]

    def _create_record(self, call: Routed) -> Row:
        home = self._domain(call)
        fields = self._checked(home, call.body, None)
        number = self.add(home.name, **fields)
        return {"domain_record": home.records[number]}

    def _update_record(self, call: Routed) -> Row:
        home, row = self._domain(call), self._record(call)
        if call.body.get("type", row["type"]) != row["type"]:
            raise unprocessable("The type of a record cannot be changed")
        row.update(self._checked(home, {**row, **call.body}, row["id"]))
        home.serial += 1
        return {"domain_record": row}

    def _delete_record(self, call: Routed) -> None:
        home, row = self._domain(call), self._record(call)
        if row["type"] == "SOA":
            raise unprocessable("SOA records cannot be deleted")
        del home.records[row["id"]]
        home.serial += 1

    def _domain(self, call: Routed) -> Domain:
        home = self.all.get(call.names[0].lower())
        if home is None:
            raise missing()
        return home

    def _record(self, call: Routed) -> Row:
        row = self._domain(call).records.get(int(call.names[1]))
        if row is None:
            raise missing()
        return row

    def _checked(self, home: Domain, body: Row, id: int | None) -> Row:
        """Return the fields of a record as they are kept."""
        kind, name, data = body.get("type"), body.get("name"), body.get("data")
        if kind not in _TYPES:
            raise unprocessable("Record type is not included in the list")
        if not isinstance(name, str) or not _OWNER.fullmatch(name):
            raise unprocessable("Name is not valid")
        if not isinstance(data, str) or not data:
            raise unprocessable("Data can't be blank")
        for field in _NEEDED.get(kind, ()):
            if body.get(field) is None:
                raise unprocessable(f"{field.capitalize()} can't be blank")
        ttl = body.get("ttl", _TTL)
        if not isinstance(ttl, int) or ttl < _LEAST_TTL:
            raise unprocessable(f"Ttl must be greater than or equal to {_LEAST_TTL}")
        name = name.lower()
        others = {row["type"] for row in home.records.values() if row["name"] == name and row["id"] != id}
        if "CNAME" in others or (kind == "CNAME" and others):
            raise unprocessable("CNAME records cannot share a name with other records")
        kept = {field: body.get(field) for field in _NEEDED.get(kind, ())}
        return {"type": kind, "name": name, "data": _kept(home, kind, data), "ttl": ttl, **kept}


def _kept(home: Domain, kind: str, data: str) -> str:
    if kind in {"A", "AAAA"}:
        try:
            return str(ipaddress.IPv4Address(data) if kind == "A" else ipaddress.IPv6Address(data))
        except ValueError as exc:
            raise unprocessable("IP address is not valid") from exc
    if kind == "TXT":
        if len(data) + 2 > _LONGEST_TEXT:
            raise unprocessable("Data is too long (maximum is 512 characters)")
        return data.replace("\\", "")  # as dnscontrol saw it
    if kind == "SRV" and data == ".":
        return data
    if not data.endswith("."):
        raise unprocessable("Data needs to end with a dot (.)")
    bare = data.removesuffix(".")
    if not bare:
        raise unprocessable("Data needs to be a hostname")
    if kind in _HOSTS:
        return "@" if bare.lower() == home.name else bare
    return bare
