"""DNS of Vultr: libcloud's driver of its API v2, corrected where it loses or invents something.

libcloud 3.9's driver of Vultr is used for zones and for deletions. Corrected here, each with what it does there:

* A record of a type that libcloud does not know ends the listing with an error.
* ``update_record`` leaves out a name that is empty, and so cannot say that a record is the zone's own.
* What is added or deleted while pages are read is left out, or comes twice.
* Of an error, what is not JSON of Vultr's own shape ends in another error.

A zone that is made without an address has no records, its NS included: they are added. The SOA stands apart, and only
its name server and its address are told; the times are those that Vultr's servers answer (public answers of dig, 2018
and 2025).
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from libcloud.dns.base import Record, Zone
from libcloud.dns.drivers.vultr import VultrDNSDriverV2

from shiftable.dns.driver import RecordSet, labels, rdata_of, relative, text_of
from shiftable.paging import Page
from shiftable_libcloud._connection import Broken, Refusal, SafeDriver
from shiftable_libcloud._dns_hoster import (
    Fields,
    Listing,
    PageOf,
    caa_parts,
    caa_problem,
    chunks,
    joined,
    mailbox,
    plain_text_problem,
    taken_if,
)
from shiftable_libcloud._vultr import PAGE, VultrConnection, next_page
from shiftable_libcloud.errors import HosterFault

__all__ = [
    "LEAST_TTL",
    "SERVERS",
    "TTL_SOURCE",
    "VultrDns",
    "name_problem",
    "rdata_in",
    "record_problem",
    "soa_in",
    "told",
]

LEAST_TTL = 120
TTL_SOURCE = "what lego asks Vultr for; Vultr's reference names no limit, and nobody is known to use less"
SERVERS = ("ns1.vultr.com", "ns2.vultr.com")

_TTL = 300  # of records that are made without one
_TRIES = 4
_LONGEST_TEXT = 766
_ZONE_LABEL = re.compile(rb"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_LABEL = re.compile(rb"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?", re.IGNORECASE)
_HOSTS = frozenset({"CNAME", "MX", "NS", "SRV"})
_NOBODY = b";"
"""The value of a CAA that lets nobody issue."""


class VultrDns(Listing, SafeDriver, VultrDNSDriverV2):
    """libcloud's driver with corrections."""

    connectionCls = VultrConnection  # type: ignore[assignment]  # noqa: N815  libcloud's name, typed by its default
    options: ClassVar[Mapping[str, Any]] = {}
    most_names = 1
    """Each listing is one of the whole zone: Vultr does not look for names."""

    # zones

    def create_zone(self, domain: str, type: str = "master", ttl: int | None = None, extra: Any = None) -> Zone:  # noqa: ANN401, ARG002  as in libcloud
        """Make a zone without any record."""
        with taken_if(lambda: self._is_there(domain), domain):
            answer = self.connection.request("/v2/domains", data=json.dumps({"domain": domain}), method="POST")
        return self._to_zone(answer.object["domain"])

    def complete_zone(self, domain: str) -> None:
        """Add Vultr's NS to a new zone; if that fails, delete it."""
        zone = Zone(id=domain, domain=domain, type="master", ttl=_TTL, driver=self)
        try:
            for left in reversed(range(_TRIES)):
                try:
                    return self._add_servers(zone)
                except (Refusal, Broken) as exc:
                    if not (exc.is_executed_perhaps and left):
                        raise
        except (Refusal, Broken, HosterFault):
            with contextlib.suppress(Refusal, Broken):
                self.delete_zone(zone)
            raise

    def _add_servers(self, zone: Zone) -> None:
        held = {row["data"] for row in self._rows(zone) if row["type"] == "NS"}
        for server in SERVERS:
            if server not in held:
                self.add_record(zone, {"type": "NS", "name": "", "data": server, "ttl": _TTL})

    def page_of_zones(self, cursor: str | None) -> Page[str]:
        """Return one page of the zones' names, 500 at most."""
        return self.names_of_zones("/v2/domains", "domain", cursor)

    def _is_there(self, domain: str) -> bool:
        try:
            self.get_zone(domain)
        except Refusal:
            return False
        return True

    # records

    def list_records(self, zone: Zone, name: str | None = None) -> list[Record]:
        """Return all records of a zone, or those of one name, fully qualified without a dot at its end."""
        wanted = None if name is None else relative(f"{name}.", f"{zone.domain}.")
        rows = self._rows(zone)
        if wanted in {None, "@"}:
            rows = [self._soa(zone), *rows]
        found = [self._to_record(fields, zone) for fields in rows]
        return found if wanted is None else [each for each in found if each.name == wanted]

    def add_record(self, zone: Zone, fields: Fields) -> Record:
        """Make a record; in place of libcloud's ``create_record``."""
        answer = self.connection.request(f"/v2/domains/{zone.id}/records", data=json.dumps(fields), method="POST")
        return self._to_record(answer.object["record"], zone)

    def replace_record(self, record: Record, fields: Fields) -> Record:
        """Replace a record, whose id stays; in place of libcloud's ``update_record``. Vultr changes no types."""
        path = f"/v2/domains/{record.zone.id}/records/{record.id}"
        changed = {name: value for name, value in fields.items() if name != "type"}
        self.connection.request(path, data=json.dumps(changed), method="PATCH")
        return self._to_record({**record.extra, **changed}, record.zone)

    def _rows(self, zone: Zone) -> list[Fields]:
        return self.all_rows(f"/v2/domains/{zone.id}/records", {})

    def _soa(self, zone: Zone) -> Fields:
        told = self.connection.request(f"/v2/domains/{zone.id}/soa").object["dns_soa"]
        return {**told, "id": None, "type": "SOA", "name": "", "data": None, "ttl": _TTL}

    # answers

    def _to_zone(self, data: Fields) -> Zone:
        name = str(data["domain"]).lower()
        return Zone(id=name, domain=name, type="master", ttl=_TTL, driver=self, extra=dict(data))

    def _to_record(self, data: Fields, zone: Any = None) -> Record:  # noqa: ANN401  as in libcloud
        return Record(
            id=data["id"],
            name=str(data.get("name") or "").lower() or "@",
            type=data["type"],
            data=data["data"],
            zone=zone,
            ttl=data.get("ttl") or _TTL,
            driver=self,
            extra=dict(data),
        )

    def page(self, path: str, cursor: str | None, query: Fields) -> PageOf:
        """Ask for one page of records or of domains."""
        params = {**query, "per_page": PAGE, **({} if cursor is None else {"cursor": cursor})}
        answer = self.connection.request(path, params=params).object
        rows = answer["records" if path.endswith("/records") else "domains"]
        return PageOf(rows, answer["meta"]["total"], next_page(answer))


# what Vultr holds


def name_problem(name: str) -> str | None:
    """Say why Vultr could not hold a zone of that name."""
    parts = labels(name)
    if len(parts) < 2 or not all(_ZONE_LABEL.fullmatch(part) for part in parts):
        return "a domain of Vultr's has two labels at least, of letters, digits and hyphens"
    return None


def record_problem(zone: str, record: RecordSet) -> str | None:
    """Say why Vultr could not keep a record set exactly; what nobody has seen it keep is refused."""
    owner = relative(record.name, f"{zone}.")
    parts = () if owner == "@" else labels(owner.removeprefix("*.") if owner != "*" else "a")
    if not all(_LABEL.fullmatch(part) for part in parts):
        return f"Vultr has not been seen to take {owner!r} as a name"
    check = _PROBLEMS.get(record.type)
    found = (check(record.type, rdata) for rdata in record.rdatas) if check else ()
    return next((why for why in found if why is not None), None)


def _host_problem(kind: str, rdata: bytes) -> str | None:
    """Say why Vultr does not take the host that a value ends in; it is told without the dot at its end."""
    host = text_of(kind, rdata).rpartition(" ")[2]
    parts = labels(host)
    if len(parts) < 2 or not all(_LABEL.fullmatch(part) for part in parts):
        return f"Vultr has not been seen to take {host!r} as the host of a {kind}"
    if any(part.lower().startswith(b"xn--") for part in parts):
        return f"Vultr tells {host!r} in other letters, of which there may be two ways back (seen by dnscontrol)"
    return None


def _txt_problem(kind: str, rdata: bytes) -> str | None:  # noqa: ARG001  as all checks
    size = len(b"".join(chunks(rdata)))
    if size > _LONGEST_TEXT:
        return f"the text has {size:,} characters; Vultr has been seen to take {_LONGEST_TEXT} (by dnscontrol)"
    return plain_text_problem("Vultr", rdata)


def _caa_problem(kind: str, rdata: bytes) -> str | None:  # noqa: ARG001  as all checks
    _, tag, value = caa_parts(rdata)
    if tag in {b"issue", b"issuewild"} and value == _NOBODY:
        return None
    return caa_problem("Vultr", rdata)


_PROBLEMS: dict[str, Callable[[str, bytes], str | None]] = {
    **dict.fromkeys(_HOSTS, _host_problem),
    "CAA": _caa_problem,
    "TXT": _txt_problem,
}


# one record, there and back


def told(zone: str, record: RecordSet, rdata: bytes) -> Fields:
    """Return one value of a record set as Vultr is told it."""
    kind, owner = record.type, relative(record.name, f"{zone}.")
    fields: dict[str, Any] = {"type": kind, "name": "" if owner == "@" else owner, "ttl": record.ttl}
    if kind == "TXT":
        return {**fields, "data": f'"{b"".join(chunks(rdata)).decode("ascii")}"'}
    text = text_of(kind, rdata)
    if kind in {"MX", "SRV"}:
        priority, _, text = text.partition(" ")
        fields["priority"] = int(priority)
    return {**fields, "data": text.removesuffix(".") if kind in _HOSTS else text}


def rdata_in(zone: str, fields: Fields) -> bytes:
    """Return the value of one record.

    Raises:
        ValueError: it is none that can be understood.
    """
    kind, data = str(fields["type"]), fields["data"]
    if not isinstance(data, str):
        raise ValueError(f"a record of type {kind} without data")  # noqa: TRY004  the caller takes it for a policy
    if kind == "TXT":
        return joined((data[1:-1] if data[:1] == data[-1:] == '"' and len(data) > 1 else data).encode())
    if kind in _HOSTS:
        *numbers, host = data.split(" ")
        if not host.isascii():
            host = host.removesuffix(".").encode("idna").decode()
        data = " ".join([*numbers, f"{host.removesuffix('.')}."])
    if kind in {"MX", "SRV"}:
        data = f"{max(0, int(fields['priority'] or 0))} {data}"
    return rdata_of(kind, data, f"{zone}.")


def soa_in(zone: Zone, fields: Fields | None) -> bytes:
    """Return the SOA of a zone. Vultr does not tell the serial: it is shown as 0."""
    found = fields or {}
    email = mailbox(str(found.get("email") or "dnsadm@choopa.com"))
    server = str(found.get("nsprimary") or SERVERS[0]).removesuffix(".")
    return rdata_of("SOA", f"{server}. {email} 0 10800 3600 604800 3600", f"{zone.domain}.")
