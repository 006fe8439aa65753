"""The domains and records of the double of Vultr, with the limits and oddities of Vultr's.

What Vultr takes is known from its API reference (v2, as its own Python client has it), and from what dnscontrol's tests
met there up to July 2026. Cursors are base64 of ``next__`` and an id, as Vultr's are. The words of refusals are Vultr's
where dnscontrol reports them (a TXT without quotes), and stand-ins elsewhere.
"""

from __future__ import annotations

import ipaddress
import re
import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import attrs

from shiftable_libcloud._double_state import Refused, Routed, Routes, Row

__all__ = ["VultrDomain", "VultrDomains", "paged"]

_NAME = re.compile(r"(?=.{1,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{1,63}", re.IGNORECASE)
_OWNER = re.compile(r"|\*|(?:\*\.)?[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?", re.IGNORECASE)
_HOST = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\.)+[a-z0-9-]+", re.IGNORECASE)
_TYPES = ("A", "AAAA", "CNAME", "NS", "MX", "SRV", "TXT", "CAA", "SSHFP")
_CAA = re.compile(r'\d{1,3} (?:issue|issuewild|iodef) "[^"\s]+"')
_SSHFP = re.compile(r"[1-6] [12] [0-9a-f]+", re.IGNORECASE)
_SRV = re.compile(r"\d{1,5} \d{1,5} (\S+)")
_TTL, _LARGEST_PAGE, _DEFAULT_PAGE = 300, 500, 100


def _refused(message: str) -> Refused:
    return Refused(400, "", message)


def _missing(what: str) -> Refused:
    return Refused(404, "", f"Invalid {what}")


def paged(routed: Routed, rows: list[Row], most: int, key: str = "id") -> Row:
    """Return one page of a listing, of ``most`` rows, whatever is asked for."""
    asked = int(routed.query.get("per_page", _DEFAULT_PAGE))
    if not 1 <= asked <= _LARGEST_PAGE:
        raise _refused(f"per_page must be between 1 and {_LARGEST_PAGE}")
    start, cursor = 0, routed.query.get("cursor")
    if cursor:
        last = urlsafe_b64decode(cursor).decode().removeprefix("next__")
        start = next((at + 1 for at, row in enumerate(rows) if str(row[key]) == last), 0)
        if not start:
            raise _refused("Invalid cursor")
    shown = rows[start : start + min(asked, most)]
    more = start + len(shown) < len(rows)
    link = urlsafe_b64encode(f"next__{shown[-1][key]}".encode()).decode() if more else ""
    return {routed.listed: shown, "meta": {"total": len(rows), "links": {"next": link, "prev": ""}}}


@attrs.define
class VultrDomain:
    """One domain: its settings, its SOA, and its records by id, as the API tells them."""

    told: Row
    soa: Row
    records: dict[str, Row] = attrs.Factory(dict)


@attrs.define
class VultrDomains:
    """Answers for domains and records.

    Attributes:
        all: by name.
    """

    all: dict[str, VultrDomain] = attrs.Factory(dict)
    _numbers: int = 50_000_000
    routes: Routes = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        domain, record = "/v2/domains/([^/]+)", "/v2/domains/([^/]+)/records/([0-9a-f-]{36})"
        self.routes = Routes(
            (
                ("GET", "/v2/domains", "domains.list", "domains", self._list),
                ("POST", "/v2/domains", "domains.create", "", self._create),
                ("GET", domain, "domains.get", "", lambda call: {"domain": self._domain(call).told}),
                ("GET", f"{domain}/soa", "domains.soa", "", lambda call: {"dns_soa": self._domain(call).soa}),
                ("DELETE", domain, "domains.delete", "", self._delete),
                ("GET", f"{domain}/records", "records.list", "records", self._list_records),
                ("POST", f"{domain}/records", "records.create", "", self._create_record),
                ("PATCH", record, "records.update", "", self._update_record),
                ("DELETE", record, "records.delete", "", self._delete_record),
            )
        )

    def forget(self) -> None:
        """Delete everything."""
        self.all.clear()

    def add(self, domain: str, name: str, type: str, data: str, **more: Any) -> str:  # noqa: ANN401  JSON
        """Make a record as another tool would, unchecked, and return its id."""
        self._numbers += 1
        number = str(uuid.UUID(int=self._numbers))
        kept = {"priority": more.get("priority", -1), "ttl": more.get("ttl", _TTL)}
        row = {"id": number, "type": type, "name": "" if name == "@" else name, "data": data, **kept}
        self.all[domain].records[number] = row
        return number

    # domains

    def _list(self, call: Routed) -> list[Row]:  # noqa: ARG002  as all handlers
        return [each.told for each in self.all.values()]

    def _create(self, call: Routed) -> Row:
        name = str(call.body.get("domain") or "").lower()
        if not _NAME.fullmatch(name):
            raise _refused("Invalid domain name")
        if name in self.all:
            raise _refused("Domain already exists")
        told = {"domain": name, "date_created": "2026-01-05T12:00:00+00:00", "dns_sec": "disabled"}
        self.all[name] = VultrDomain(told, {"nsprimary": "ns1.vultr.com", "email": "dnsadm@choopa.com"})
        if call.body.get("ip"):
            for server in ("ns1.vultr.com", "ns2.vultr.com"):
                self.add(name, "", "NS", server)
            self.add(name, "", "A", call.body["ip"])
        return {"domain": told}

    def _delete(self, call: Routed) -> None:
        del self.all[self._domain(call).told["domain"]]

    def _domain(self, call: Routed) -> VultrDomain:
        found = self.all.get(call.names[0])
        if found is None:
            raise _missing("domain")
        return found

    # records

    def _list_records(self, call: Routed) -> list[Row]:
        return list(self._domain(call).records.values())

    def _create_record(self, call: Routed) -> Row:
        home = self._domain(call)
        fields = _checked(home, call.body, None)
        return {"record": home.records[self.add(home.told["domain"], **fields)]}

    def _update_record(self, call: Routed) -> None:
        home, row = self._domain(call), self._record(call)
        if "type" in call.body:
            raise _refused("The type of a record cannot be changed")
        row.update(_checked(home, {**row, **call.body}, row["id"]))

    def _delete_record(self, call: Routed) -> None:
        del self._domain(call).records[self._record(call)["id"]]

    def _record(self, call: Routed) -> Row:
        row = self._domain(call).records.get(call.names[1])
        if row is None:
            raise _missing("record")
        return row


def _checked(home: VultrDomain, body: Row, id: str | None) -> Row:
    """Return the fields of a record as they are kept."""
    kind, data, name = body.get("type"), body.get("data"), body.get("name")
    if kind not in _TYPES:
        raise _refused("Unable to add record: Invalid record type")
    if not isinstance(name, str) or not _OWNER.fullmatch(name):
        raise _refused("Unable to add record: Invalid record name")
    if not isinstance(data, str) or not data:
        raise _refused("Unable to add record: Invalid record data")
    ttl, priority = body.get("ttl", _TTL), body.get("priority", -1)
    if not isinstance(ttl, int) or ttl < 1:
        raise _refused("Unable to add record: Invalid TTL")
    if kind in {"MX", "SRV"} and not (isinstance(priority, int) and 0 <= priority <= 65535):
        raise _refused("Unable to add record: Invalid priority")
    name = name.lower()
    others = {row["type"] for row in home.records.values() if row["name"] == name and row["id"] != id}
    if "CNAME" in others or (kind == "CNAME" and others):
        raise _refused("Unable to add record: CNAME records cannot share a name with other records")
    kept = {"priority": priority if kind in {"MX", "SRV"} else -1, "ttl": ttl}
    return {"type": kind, "name": name, "data": _kept(kind, data), **kept}


def _kept(kind: str, data: str) -> str:
    if kind in {"A", "AAAA"}:
        try:
            return str(ipaddress.IPv4Address(data) if kind == "A" else ipaddress.IPv6Address(data))
        except ValueError as exc:
            raise _refused("Unable to add record: Invalid IP address") from exc
    if kind == "TXT":
        if len(data) < 2 or not data[0] == data[-1] == '"' or '"' in data[1:-1]:
            raise _refused("Unable to add record: Record data must be enclosed in quotes")
        return data
    pattern = {"CAA": _CAA, "SSHFP": _SSHFP, "SRV": _SRV}.get(kind, _HOST)
    found = pattern.fullmatch(data)
    if found is None or (kind == "SRV" and not _HOST.fullmatch(found[1])):
        raise _refused("Unable to add record: Invalid record data")
    return data
