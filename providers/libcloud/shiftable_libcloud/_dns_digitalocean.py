"""DNS of DigitalOcean: libcloud's driver, corrected where it loses or invents something.

libcloud 3.9's driver of DigitalOcean is used for zones and for deletions. Corrected here, each with what it does there:

* ``create_zone`` gives every new zone an A record ``127.0.0.1``, which nobody asked for.
* ``create_record`` and ``update_record`` have no ``flags`` and ``tag``, and know no CAA; a record without all of
  priority, port and weight is told ``null`` for those that are left out. ``add_record`` and ``replace_record`` stand in
  for them.
* Reading leaves out ``flags`` and ``tag`` as well, and translates types by names of libcloud's: an AFSDB becomes an A,
  and one type that libcloud does not know makes the whole zone unreadable.
* Pages are counted once, at the first one: what is added or deleted meanwhile is left out, or comes twice.
"""

from __future__ import annotations

import json
import re
from typing import Any

from libcloud.dns.base import Record, Zone
from libcloud.dns.drivers.digitalocean import DigitalOceanDNSDriver

from shiftable.dns.driver import RecordSet, labels, rdata_of, relative, text_of
from shiftable.paging import Page
from shiftable_libcloud._digitalocean import DigitalOceanDriver, has_more
from shiftable_libcloud._dns_hoster import (
    Fields,
    Listing,
    PageOf,
    caa_parts,
    caa_problem,
    chunks,
    joined,
    numbered,
    plain_text_problem,
)

__all__ = ["DigitalOceanDns", "name_problem", "rdata_in", "record_problem", "soa_in", "told"]

_LONGEST_TEXT = 509
_HOSTS = frozenset({"CNAME", "MX", "NS", "SRV"})
"""Types whose ``data`` is the name of a host. It is written with a dot at its end and read without."""
_LABEL = re.compile(rb"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", re.IGNORECASE)
_SOA = re.compile(r"\sSOA\s+(\S+)\s+(\S+)\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)")


class DigitalOceanDns(Listing, DigitalOceanDriver, DigitalOceanDNSDriver):  # type: ignore[misc]  # libcloud types by its defaults
    """libcloud's driver with corrections."""

    most_names = 5

    # zones

    def create_zone(self, domain: str, type: str = "master", ttl: int | None = None, extra: Any = None) -> Zone:  # noqa: ANN401, ARG002  as in libcloud
        """Make a zone with its SOA and NS, and nothing else."""
        answer = self.connection.request("/v2/domains", data=json.dumps({"name": domain}), method="POST")
        made: Zone = self._to_zone(answer.object["domain"])
        return made

    def page_of_zones(self, cursor: str | None) -> Page[str]:
        """Return one page of the zones' names, 200 at most."""
        return self.names_of_zones("/v2/domains", "name", cursor)

    # records

    def list_records(self, zone: Zone, name: str | None = None) -> list[Record]:
        """Return all records of a zone, or those of one name, fully qualified without a dot at its end."""
        wanted = {} if name is None else {"name": name}
        return [self._to_record(fields, zone) for fields in self.all_rows(f"/v2/domains/{zone.id}/records", wanted)]

    def add_record(self, zone: Zone, fields: Fields) -> Record:
        """Make a record; in place of libcloud's ``create_record``."""
        answer = self.connection.request(f"/v2/domains/{zone.id}/records", data=json.dumps(fields), method="POST")
        return self._to_record(answer.object["domain_record"], zone)

    def replace_record(self, record: Record, fields: Fields) -> Record:
        """Replace a record, whose id stays; in place of libcloud's ``update_record``."""
        path = f"/v2/domains/{record.zone.id}/records/{record.id}"
        answer = self.connection.request(path, data=json.dumps(fields), method="PUT")
        return self._to_record(answer.object["domain_record"], record.zone)

    # answers

    def _to_record(self, data: Fields, zone: Any = None) -> Record:  # noqa: ANN401  as in libcloud
        return Record(
            id=data["id"],
            name=data["name"],
            type=data["type"],
            data=data["data"],
            zone=zone,
            ttl=data.get("ttl"),
            driver=self,
            extra=dict(data),
        )

    def page(self, path: str, cursor: str | None, query: Fields) -> PageOf:
        """Ask for one page of records or of domains."""
        number = numbered(cursor)
        answer = self.connection.request(path, params={**query, "page": number}).object
        rows = answer["domain_records" if path.endswith("/records") else "domains"]
        return PageOf(rows, answer["meta"]["total"], str(number + 1) if has_more(answer) else None)


# what DigitalOcean holds


def name_problem(name: str) -> str | None:
    """Say why DigitalOcean could not hold a zone of that name."""
    parts = labels(name)
    if len(parts) < 2:
        return "a domain has at least two labels (DigitalOcean API reference, Domains)"
    if not all(_LABEL.fullmatch(part) for part in parts):
        return "the labels of a domain have letters, digits and hyphens (DigitalOcean API reference, Domains)"
    return None


def record_problem(zone: str, record: RecordSet) -> str | None:  # noqa: ARG001  as all hosters'
    """Say why DigitalOcean could not keep a record set exactly; what nobody has seen it keep is refused."""
    problem = {"CAA": _caa_problem, "MX": _mx_problem, "TXT": _txt_problem}.get(record.type)
    found = (problem(rdata) for rdata in record.rdatas) if problem else ()
    return next((why for why in found if why is not None), None)


def _mx_problem(rdata: bytes) -> str | None:
    return "DigitalOcean takes no null MX" if rdata[2:] == b"\0" else None


def _txt_problem(rdata: bytes) -> str | None:
    why = plain_text_problem("DigitalOcean", rdata)
    size = sum(len(chunk) + 3 for chunk in chunks(rdata)) - 1
    if why is None and size > _LONGEST_TEXT:
        return f"as quoted text it has {size:,} characters; DigitalOcean takes {_LONGEST_TEXT} (seen by dnscontrol)"
    return why


def _caa_problem(rdata: bytes) -> str | None:
    return caa_problem("DigitalOcean", rdata)


# one record, there and back


def told(zone: str, record: RecordSet, rdata: bytes) -> Fields:
    """Return one value of a record set as DigitalOcean is told it."""
    kind = record.type
    fields: dict[str, Any] = {"type": kind, "name": relative(record.name, f"{zone}."), "ttl": record.ttl}
    if kind == "TXT":
        return {**fields, "data": b"".join(chunks(rdata)).decode("ascii")}
    if kind == "CAA":
        flags, tag, value = caa_parts(rdata)
        data = f"{value.decode('ascii')}."  # it comes back without the dot
        return {**fields, "flags": flags, "tag": tag.decode("ascii"), "data": data}
    parts = text_of(kind, rdata).split(" ")
    numbers = {"MX": ("priority",), "SRV": ("priority", "weight", "port")}.get(kind, ())
    return {**fields, **dict(zip(numbers, map(int, parts), strict=False)), "data": parts[-1]}


def rdata_in(zone: str, fields: Fields) -> bytes:
    """Return the value of one record.

    Raises:
        ValueError: it is none that can be understood.
    """
    kind, data = str(fields["type"]), fields["data"]
    if not isinstance(data, str):
        raise ValueError(f"a record of type {kind} without data")  # noqa: TRY004  the caller takes it for a policy
    if kind == "TXT":
        return joined(data.encode())
    if kind == "CAA":
        tag = str(fields["tag"]).encode("ascii")
        return bytes([int(fields["flags"] or 0), len(tag)]) + tag + data.removesuffix(".").encode("ascii")
    if kind in _HOSTS:
        data = f"{zone}." if data == "@" else data if data.endswith(".") else f"{data}."
    numbers = {"MX": ("priority",), "SRV": ("priority", "weight", "port")}.get(kind, ())
    return rdata_of(kind, " ".join([*(str(fields[number] or 0) for number in numbers), data]), f"{zone}.")


def soa_in(zone: Zone, fields: Fields | None) -> bytes:
    """Return the SOA of a zone: out of its zone file, which a new zone does not have yet, or as that will have it."""
    found = _SOA.search(zone.extra.get("zone_file") or "")
    least = str((fields or {}).get("data") or 1800)
    default = ("ns1.digitalocean.com.", f"hostmaster.{zone.domain}.", "1", "10800", "3600", "604800", least)
    return rdata_of("SOA", " ".join(found.groups() if found else default), f"{zone.domain}.")
