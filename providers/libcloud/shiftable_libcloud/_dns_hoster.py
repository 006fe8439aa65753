"""What the DNS of every hoster here has in common: what is asked of its API, listings that fit together, texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import attrs
from libcloud.dns.base import Record, Zone

from shiftable.dns.driver import RecordSet
from shiftable.errors import Conflict, Fault
from shiftable.paging import Page
from shiftable_libcloud._connection import Refusal
from shiftable_libcloud.errors import HosterFault

__all__ = ["Fields", "HosterDns", "Listing", "PageOf", "Words", "caa_problem", "chunks", "joined", "plain_text_problem"]

Fields = Mapping[str, Any]
"""A record in the words of a hoster's API."""

_LISTINGS = 5
_MISSING = 404
_TEXT = re.compile(rb"[!#-\[\]-~](?:[ !#-\[\]-~]*[!#-\[\]-~])?")
_CAA_VALUE = re.compile(rb"[!-:<-~]*[!-\-/-:<-~]")
_CAA_TAGS = frozenset({"issue", "issuewild", "iodef"})


class HosterDns(Protocol):
    """libcloud's driver of one hoster, with corrections. Names of records are relative, ``@`` for the zone itself.

    Attributes:
        most_names: up to so many names are asked for one by one; for more the whole zone is.
    """

    connection: Any
    most_names: int

    def create_zone(self, domain: str) -> Zone:
        """Make a zone with its SOA and NS, and nothing else."""

    def get_zone(self, zone_id: str) -> Zone:
        """Return the zone of that name."""

    def delete_zone(self, zone: Zone) -> bool:
        """Delete a zone with all that is in it."""

    def page_of_zones(self, cursor: str | None) -> Page[str]:
        """Return one page of the zones' names."""

    def list_records(self, zone: Zone, name: str | None = None) -> list[Record]:
        """Return all records of a zone, or those of one name, fully qualified without a dot at its end."""

    def add_record(self, zone: Zone, fields: Fields) -> Record:
        """Make a record."""

    def replace_record(self, record: Record, fields: Fields) -> Record:
        """Replace a record, whose id stays."""

    def delete_record(self, record: Record) -> bool:
        """Delete a record."""


class Words(Protocol):
    """What a hoster holds, and how it is told: the functions of its module."""

    def name_problem(self, name: str) -> str | None:
        """Say why the hoster could not hold a zone of that name."""

    def record_problem(self, zone: str, record: RecordSet) -> str | None:
        """Say why the hoster could not keep a record set exactly."""

    def told(self, zone: str, record: RecordSet, rdata: bytes) -> Fields:
        """Return one value of a record set as the hoster is told it."""

    def rdata_in(self, zone: str, fields: Fields) -> bytes:
        """Return the value of one record."""

    def soa_in(self, zone: Zone, fields: Fields | None) -> bytes:
        """Return the SOA of a zone."""


@attrs.frozen
class PageOf:
    """One page of a listing.

    Args:
        total: how many rows all pages have.
    """

    rows: list[Fields]
    total: int
    has_more: bool


class Listing:
    """Mixed into drivers whose listings have numbered pages; others may write between two of them.

    Attributes:
        page: asks for one page of a path, by number, the first being 1, and by what is looked for.
    """

    page: Callable[[str, int, Fields], PageOf]

    def numbered_page_of_zones(self, path: str, field: str, cursor: str | None) -> Page[str]:
        """Return one page of the zones' names.

        Raises:
            HosterFault: their number changed since the first page, so that one may be left out: list them again.
        """
        number, _, total = (cursor or "1 ").partition(" ")
        found = self._later_page(path, int(number), {})
        if found is None or total not in {"", str(found.total)}:
            raise HosterFault(Fault(Conflict, "zones were made or deleted while they were listed; list them again"))
        names = tuple(str(zone[field]).lower() for zone in found.rows)
        return Page(names, f"{int(number) + 1} {found.total}" if found.has_more else None)

    def all_rows(self, path: str, query: Fields) -> list[Fields]:
        """Return what all pages hold.

        Raises:
            HosterFault: others wrote each time that it was listed.
        """
        for _ in range(_LISTINGS):
            found = self._rows_once(path, query)
            if found is not None:
                return found
        raise HosterFault(Fault(Conflict, f"others change the zone all the time: {_LISTINGS} listings did not fit"))

    def _rows_once(self, path: str, query: Fields) -> list[Fields] | None:
        """Return what all pages hold; ``None`` if they do not fit together, as somebody wrote between them."""
        found, number, total = dict[Any, Fields](), 1, None
        while True:
            page = self._later_page(path, number, query)
            if page is None or total not in {None, page.total}:
                return None
            wanted = len(found) + len(page.rows)
            found.update({row["id"] or f"{number}/{at}": row for at, row in enumerate(page.rows)})
            if len(found) < wanted:
                return None
            if not page.has_more:
                return list(found.values()) if len(found) == page.total else None
            number, total = number + 1, page.total

    def _later_page(self, path: str, number: int, query: Fields) -> PageOf | None:
        """Return a page; ``None`` if it is not the first one and is not there any more."""
        try:
            return self.page(path, number, query)
        except Refusal as exc:
            if number > 1 and exc.code == _MISSING:
                return None
            raise


# texts


def plain_text_problem(hoster: str, rdata: bytes) -> str | None:
    """Say why a TXT does not come back from a hoster that keeps one text, as far as anybody has seen."""
    text = b"".join(chunks(rdata))
    if joined(text) != rdata:
        return f"{hoster} keeps a TXT as one text, and so the chunks of 255 bytes and a rest alone"
    if not _TEXT.fullmatch(text):
        return f"of a TXT {hoster} keeps printable ASCII without quotes, backslashes and blanks at the ends"
    return None


def caa_problem(hoster: str, rdata: bytes) -> str | None:
    """Say why a CAA does not come back from a hoster that takes known tags and plain values."""
    tag, value = rdata[2 : 2 + rdata[1]].decode("ascii", "replace"), rdata[2 + rdata[1] :]
    if tag not in _CAA_TAGS:
        return f"{hoster} knows the CAA tags {', '.join(sorted(_CAA_TAGS))}, not {tag!r}"
    if not _CAA_VALUE.fullmatch(value):
        return f"of a CAA {hoster} takes a name or an address, without blanks, semicolons and a dot at the end"
    return None


def chunks(rdata: bytes) -> list[bytes]:
    """Return the strings of a TXT."""
    found, at = list[bytes](), 0
    while at < len(rdata):
        found.append(rdata[at + 1 : at + 1 + rdata[at]])
        at += 1 + rdata[at]
    return found


def joined(text: bytes) -> bytes:
    """Return the rdata of a text, in chunks as name servers make them."""
    pieces = [text[at : at + 255] for at in range(0, len(text), 255)] or [b""]
    return b"".join(bytes([len(piece)]) + piece for piece in pieces)
