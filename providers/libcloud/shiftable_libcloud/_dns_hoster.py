"""What the DNS of every hoster here has in common: what is asked of its API, listings that fit together, texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import attrs
from libcloud.dns.base import Record, Zone

from shiftable.dns.driver import RecordSet
from shiftable.errors import Conflict, Fault
from shiftable.paging import Page
from shiftable_libcloud._connection import Refusal
from shiftable_libcloud.errors import HosterFault

__all__ = [
    "Fields",
    "HosterDns",
    "Listing",
    "PageOf",
    "Words",
    "caa_parts",
    "caa_problem",
    "chunks",
    "joined",
    "mailbox",
    "numbered",
    "plain_text_problem",
    "taken_if",
]

Fields = Mapping[str, Any]
"""A record in the words of a hoster's API."""

_LISTINGS = 5
_REFUSED, _MISSING = 400, 404
_TEXT = re.compile(rb"[!#-\[\]-~](?:[ !#-\[\]-~]*[!#-\[\]-~])?")
_CAA_VALUE = re.compile(rb"[!-:<-~]*[!-\-/-:<-~]")
_CAA_TAGS = frozenset({"issue", "issuewild", "iodef"})


def numbered(cursor: str | None) -> int:
    """Return the number of a page, the first being 1."""
    return int(cursor or 1)


@contextmanager
def taken_if(is_there: Callable[[], object], name: str) -> Iterator[None]:
    """Make a zone: of a refusal with status 400, whatever it says, tell that the account has the zone, if it has."""
    try:
        yield
    except Refusal as exc:
        if exc.code == _REFUSED and is_there():
            raise Refusal(exc.code, exc.id, f"{exc.message}: {name} already exists") from exc
        raise


class HosterDns(Protocol):
    """libcloud's driver of one hoster, with corrections. Names of records are relative, ``@`` for the zone itself.

    Attributes:
        most_names: up to so many names are asked for one by one; for more the whole zone is.
    """

    connection: Any
    most_names: int

    def create_zone(self, domain: str) -> Zone:
        """Make a zone with its SOA, and nothing else but its NS."""

    def complete_zone(self, domain: str) -> None:
        """Give a new zone its NS, where the hoster does not."""

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
        next: what the next page is asked for with: its number, or the hoster's own word; ``None`` for the last page.
    """

    rows: list[Fields]
    total: int
    next: str | None


class Listing:
    """Mixed into drivers whose listings have pages; others may write between two of them.

    Attributes:
        page: asks for one page of a path, by its number or cursor, ``None`` for the first, and by what is looked for.
    """

    page: Callable[[str, str | None, Fields], PageOf]

    def complete_zone(self, domain: str) -> None:
        """Do nothing: at most hosters a new zone has its NS."""

    def names_of_zones(self, path: str, field: str, cursor: str | None) -> Page[str]:
        """Return one page of the zones' names.

        Raises:
            HosterFault: their number changed since the first page, so that one may be left out: list them again.
        """
        total, _, at = (cursor or "").partition(" ")
        found = self._later_page(path, at or None, {})
        if found is None or total not in {"", str(found.total)}:
            raise HosterFault(Fault(Conflict, "zones were made or deleted while they were listed; list them again"))
        names = tuple(str(zone[field]).lower() for zone in found.rows)
        return Page(names, None if found.next is None else f"{found.total} {found.next}")

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
        found, cursor, total = dict[Any, Fields](), None, None
        while True:
            page = self._later_page(path, cursor, query)
            if page is None or total not in {None, page.total}:
                return None
            wanted = len(found) + len(page.rows)
            found.update({row["id"] or f"{cursor}/{at}": row for at, row in enumerate(page.rows)})
            if len(found) < wanted:
                return None
            if page.next is None:
                return list(found.values()) if len(found) == page.total else None
            cursor, total = page.next, page.total

    def _later_page(self, path: str, cursor: str | None, query: Fields) -> PageOf | None:
        """Return a page; ``None`` if it is not the first one and is not there any more."""
        try:
            return self.page(path, cursor, query)
        except Refusal as exc:
            if cursor is not None and exc.code in {_REFUSED, _MISSING}:
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
    _, given, value = caa_parts(rdata)
    tag = given.decode("ascii", "replace")
    if tag not in _CAA_TAGS:
        return f"{hoster} knows the CAA tags {', '.join(sorted(_CAA_TAGS))}, not {tag!r}"
    if not _CAA_VALUE.fullmatch(value):
        return f"of a CAA {hoster} takes a name or an address, without blanks, semicolons and a dot at the end"
    return None


def caa_parts(rdata: bytes) -> tuple[int, bytes, bytes]:
    """Return flags, tag and value of a CAA."""
    end = 2 + rdata[1]
    return rdata[0], rdata[2:end], rdata[end:]


def mailbox(address: str) -> str:
    """Write an address of mail as it stands in an SOA."""
    local, _, domain = address.partition("@")
    return f"{local.replace('.', chr(92) + '.')}.{domain}."


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
