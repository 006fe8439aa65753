"""DNS of Linode: libcloud's driver of its API v4, corrected where it loses or invents something.

libcloud 3.9's driver of Linode is used for deletions. Corrected here, each with what it does there:

* Zones are found by number only, and a record without a number, or of a type that libcloud does not know (PTR), ends
  the listing with an error.
* The tag of a CAA is not read.
* A page has 25 rows, though 500 are allowed, and pages are counted once, at the first one: what is added or deleted
  meanwhile is left out, or comes twice.
* Of an error, what is not JSON of Linode's own shape ends in another error.

Linode tells neither the SOA nor its own NS of a zone; both are added here, as its servers have them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from libcloud.dns.base import Record, Zone
from libcloud.dns.drivers.linode import LinodeDNSDriverV4

from shiftable.dns.driver import RecordSet, labels, rdata_of, relative, text_of
from shiftable.errors import Fault, NotFound, Unsupported
from shiftable.paging import Page
from shiftable_libcloud._connection import SafeDriver
from shiftable_libcloud._dns_hoster import (
    Fields,
    Listing,
    PageOf,
    caa_parts,
    caa_problem,
    chunks,
    joined,
    mailbox,
    numbered,
    plain_text_problem,
    taken_if,
)
from shiftable_libcloud._linode import LinodeConnection
from shiftable_libcloud.errors import HosterFault

__all__ = [
    "SERVERS",
    "TTLS",
    "TTL_SOURCE",
    "LinodeDns",
    "name_problem",
    "rdata_in",
    "record_problem",
    "soa_in",
    "told",
]

TTLS = (300, 3600, 7200, 14400, 28800, 57600, 86400, 172800, 345600, 604800, 1209600, 2419200)
TTL_SOURCE = "Linode API reference, Create a domain record, ttl_sec"
SERVERS = tuple(f"ns{number}.linode.com" for number in range(1, 6))
"""Linode's own name servers, which every zone has, and which its API does not tell (seen by dnscontrol)."""

_PAGE = 500  # the most, API reference, page_size
_ZONE_TTL = 86400  # where neither the record nor the zone has one
_TIMES = {"refresh_sec": 14400, "retry_sec": 14400, "expire_sec": 1209600, "ttl_sec": _ZONE_TTL}
_LONGEST_NAME, _LONGEST_HOST, _HIGHEST_PRIORITY = 100, 253, 255
_NO_SERVICE = "a SRV of Linode's is named _service._tcp or _service._udp (seen by linode_api4 and dnscontrol)"

_ZONE = re.compile(r"(?:[a-z0-9_-]{1,63}\.)+(?:[a-z]{2,16}|xn--[a-z0-9]+)")
_LABEL = re.compile(rb"_?[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?")
_MAIL_LABEL = re.compile(rb"[a-z](?:[a-z0-9-]*[a-z0-9])?")
_SERVICE = re.compile(r"_([a-z0-9](?:[a-z0-9-]*[a-z0-9])?)\._((?:tcp|udp)(?:\..+)?)")
_CONTACT = re.compile(rb"(?:mailto:|https?://).+")


class LinodeDns(Listing, SafeDriver, LinodeDNSDriverV4):
    """libcloud's driver with corrections."""

    connectionCls = LinodeConnection  # type: ignore[assignment]  # noqa: N815  libcloud's name, typed by its default
    most_names = 1
    """Each listing is one of the whole zone: how Linode spells a name that it filters by is not told for every type."""

    # zones

    def create_zone(self, domain: str, type: str = "master", ttl: int | None = None, extra: Any = None) -> Zone:  # noqa: ANN401, ARG002  as in libcloud
        """Make a zone; Linode wants an address for its SOA."""
        fields = {"domain": domain, "type": "master", "soa_email": f"hostmaster@{domain}"}
        with taken_if(lambda: self._found(domain), domain):
            answer = self.connection.request("/v4/domains", data=json.dumps(fields), method="POST")
        return self._to_zone(answer.object)

    def get_zone(self, zone_id: str) -> Zone:
        """Return the zone of that name.

        Raises:
            HosterFault: there is none, or it is a copy of another server's.
        """
        found = self._found(zone_id)
        if found is None:
            raise HosterFault(Fault(NotFound, f"the account has no domain {zone_id}", missing="zone"))
        if found["type"] != "master":
            raise HosterFault(Fault(Unsupported, "the domain is a copy of another name server's; change it there"))
        return self._to_zone(found)

    def page_of_zones(self, cursor: str | None) -> Page[str]:
        """Return one page of the zones' names, 500 at most."""
        return self.names_of_zones("/v4/domains", "domain", cursor)

    def _found(self, name: str) -> Fields | None:
        """Look for a zone; its name is compared here, whatever the filter means to Linode."""
        rows = self.all_rows("/v4/domains", {"domain": name})
        return next((row for row in rows if str(row["domain"]).lower() == name), None)

    # records

    def list_records(self, zone: Zone, name: str | None = None) -> list[Record]:
        """Return all records of a zone, or those of one name, fully qualified without a dot at its end."""
        rows = self.all_rows(f"/v4/domains/{zone.id}/records", {})
        ours = [{"id": None, "type": "NS", "name": "", "target": server} for server in SERVERS]
        soa = {"id": None, "type": "SOA", "name": "", "target": None}
        found = [self._to_record(fields, zone) for fields in (soa, *ours, *rows)]
        wanted = None if name is None else relative(f"{name}.", f"{zone.domain}.")
        return found if wanted is None else [each for each in found if each.name == wanted]

    def add_record(self, zone: Zone, fields: Fields) -> Record:
        """Make a record; in place of libcloud's ``create_record``.

        dnscontrol saw that the TTL of a creation was lost; where the answer shows that, it is said again.
        """
        answer = self.connection.request(f"/v4/domains/{zone.id}/records", data=json.dumps(fields), method="POST")
        made = self._to_record(answer.object, zone)
        return made if answer.object["ttl_sec"] == fields["ttl_sec"] else self.replace_record(made, fields)

    def replace_record(self, record: Record, fields: Fields) -> Record:
        """Replace a record, whose id stays; in place of libcloud's ``update_record``."""
        path = f"/v4/domains/{record.zone.id}/records/{record.id}"
        answer = self.connection.request(path, data=json.dumps(fields), method="PUT")
        return self._to_record(answer.object, record.zone)

    # answers

    def _to_zone(self, item: Fields) -> Zone:
        return Zone(
            id=item["id"],
            domain=str(item["domain"]).lower(),
            type=item["type"],
            ttl=item.get("ttl_sec") or _ZONE_TTL,
            driver=self,
            extra=dict(item),
        )

    def _to_record(self, item: Fields, zone: Any = None) -> Record:  # noqa: ANN401  as in libcloud
        return Record(
            id=item["id"],
            name=_owner(item),
            type=item["type"],
            data=item["target"],
            zone=zone,
            ttl=item.get("ttl_sec") or zone.ttl,
            driver=self,
            extra=dict(item),
        )

    def page(self, path: str, cursor: str | None, query: Fields) -> PageOf:
        """Ask for one page of records or of domains; a query goes into a header."""
        number = numbered(cursor)
        headers = {"X-Filter": json.dumps(query)} if query else {}
        params = {"page": number, "page_size": _PAGE}
        answer = self.connection.request(path, params=params, headers=headers).object
        return PageOf(answer["data"], answer["results"], str(number + 1) if answer["page"] < answer["pages"] else None)


def _owner(fields: Fields) -> str:
    """Return the name of a record; a SRV is told by service and protocol, and mostly by its name as well."""
    name = str(fields.get("name") or "").lower()
    if not name and fields["type"] == "SRV":
        parts = (str(fields.get(field) or "").strip("_. ").lower() for field in ("service", "protocol"))
        return "._".join(("", *parts)).removeprefix(".")
    return name or "@"


# what Linode holds


def name_problem(name: str) -> str | None:
    """Say why Linode could not hold a zone of that name."""
    if not _ZONE.fullmatch(name):
        return "a domain has letters, digits, hyphens and underscores, and ends in letters (Linode API reference)"
    return None


def record_problem(zone: str, record: RecordSet) -> str | None:
    """Say why Linode could not keep a record set exactly; what nobody has seen it keep is refused."""
    if record.ttl not in TTLS:
        steps = ", ".join(map(str, TTLS))
        return f"the TTL is {record.ttl:,} s; Linode rounds what is none of {steps} ({TTL_SOURCE})"
    why = _owner_problem(relative(record.name, f"{zone}."), record)
    if why is not None:
        return why
    check = _PROBLEMS.get(record.type)
    found = (check(record, rdata) for rdata in record.rdatas) if check else ()
    return next((why for why in found if why is not None), None)


def _owner_problem(owner: str, record: RecordSet) -> str | None:
    if len(owner) > _LONGEST_NAME:
        return f"the name has {len(owner)} characters; Linode takes {_LONGEST_NAME} (API reference, name)"
    if owner == "@":
        return None if record.type != "SRV" else _NO_SERVICE
    if record.type == "SRV" and not _SERVICE.fullmatch(owner):
        return _NO_SERVICE
    parts = labels(owner)
    if parts[0] == b"*":
        if record.type == "NS":
            return "Linode takes no NS of a wildcard (API reference, name)"
        parts = parts[1:]
    pattern = _MAIL_LABEL if record.type == "MX" else _LABEL
    if not all(pattern.fullmatch(part) for part in parts):
        return f"Linode does not take {owner!r} as the name of a {record.type} (API reference, name)"
    return None


def _host_problem(record: RecordSet, rdata: bytes) -> str | None:
    """Say why Linode does not take the host that a value ends in."""
    *numbers, host = text_of(record.type, rdata).split(" ")
    if host == ".":
        return f"a {record.type} without a host is not taken by Linode, or not beside others"
    parts, pattern = labels(host), _MAIL_LABEL if record.type == "MX" else _LABEL
    if len(parts) < 2 or len(host) > _LONGEST_HOST or not all(pattern.fullmatch(part.lower()) for part in parts):
        return f"Linode does not take {host!r} as the host of a {record.type} (API reference, target)"
    if numbers and int(numbers[0]) > _HIGHEST_PRIORITY:
        return f"the priority is {numbers[0]}; Linode takes {_HIGHEST_PRIORITY} at most (API reference, priority)"
    return None


def _txt_problem(record: RecordSet, rdata: bytes) -> str | None:  # noqa: ARG001  as all checks
    return plain_text_problem("Linode", rdata)


def _caa_problem(record: RecordSet, rdata: bytes) -> str | None:  # noqa: ARG001  as all checks
    flags, tag, value = caa_parts(rdata)
    if flags:
        return "Linode drops the flags of a CAA (seen by dnscontrol)"
    why = caa_problem("Linode", rdata)
    if why is not None:
        return why
    parts = value.lower().split(b".")
    is_host = len(parts) > 1 and all(_LABEL.fullmatch(part) for part in parts)
    if not is_host and not (tag == b"iodef" and _CONTACT.fullmatch(value)):
        return "of a CAA Linode takes a domain, and with iodef an address of mail or the web (API reference, target)"
    return None


_PROBLEMS: dict[str, Callable[[RecordSet, bytes], str | None]] = {
    "CAA": _caa_problem,
    "CNAME": _host_problem,
    "MX": _host_problem,
    "NS": _host_problem,
    "SRV": _host_problem,
    "TXT": _txt_problem,
}


# one record, there and back


def told(zone: str, record: RecordSet, rdata: bytes) -> Fields:
    """Return one value of a record set as Linode is told it."""
    kind, owner = record.type, relative(record.name, f"{zone}.")
    fields: dict[str, Any] = {"type": kind, "name": "" if owner == "@" else owner, "ttl_sec": record.ttl}
    if kind == "TXT":
        return {**fields, "target": b"".join(chunks(rdata)).decode("ascii")}
    if kind == "CAA":
        _, tag, value = caa_parts(rdata)
        return {**fields, "tag": tag.decode("ascii"), "target": value.decode("ascii")}
    *numbers, target = text_of(kind, rdata).split(" ")
    names = {"MX": ("priority",), "SRV": ("priority", "weight", "port")}.get(kind, ())
    fields |= zip(names, map(int, numbers), strict=True)
    if kind == "SRV":
        service = _SERVICE.fullmatch(owner)
        if service is None:
            raise ValueError(f"no name of a service: {owner!r}")
        # the only way to a name below the zone is the protocol (seen by dnscontrol); the dot keeps the target whole
        return {**fields, "name": "", "service": service[1], "protocol": service[2], "target": target}
    return {**fields, "target": target.removesuffix(".")}


def rdata_in(zone: str, fields: Fields) -> bytes:
    """Return the value of one record.

    Raises:
        ValueError: it is none that can be understood.
    """
    kind, target = str(fields["type"]), fields["target"]
    if not isinstance(target, str):
        raise ValueError(f"a record of type {kind} without a target")  # noqa: TRY004  the caller takes it for a policy
    if kind == "TXT":
        return joined(target.encode())
    if kind == "CAA":
        tag = str(fields["tag"]).encode("ascii")
        return bytes([0, len(tag)]) + tag + target.encode("ascii")
    if kind in {"CNAME", "MX", "NS", "PTR", "SRV"}:
        target = f"{target.removesuffix('.')}."
    names = {"MX": ("priority",), "SRV": ("priority", "weight", "port")}.get(kind, ())
    return rdata_of(kind, " ".join([*(str(fields[name] or 0) for name in names), target]), f"{zone}.")


def soa_in(zone: Zone, fields: Fields | None) -> bytes:  # noqa: ARG001  as all hosters'
    """Return the SOA of a zone, out of its settings. Linode does not tell the serial: it is shown as 0."""
    email = mailbox(str(zone.extra.get("soa_email") or f"hostmaster@{zone.domain}"))
    times = (str(zone.extra.get(name) or default) for name, default in _TIMES.items())
    return rdata_of("SOA", " ".join([f"{SERVERS[0]}.", email, "0", *times]), f"{zone.domain}.")
