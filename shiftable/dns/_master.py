"""Zone files (master files, RFC 1035, 5) as people write them, by dnspython's reader, which is kept from dropping any.

Left to itself it skips names outside the zone, and keeps the last of several CNAMEs.
"""

from __future__ import annotations

from typing import cast

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.tokenizer
import dns.zonefile

from shiftable.dns._text import told
from shiftable.dns._wire import NOT_ASCII

__all__ = ["Record", "read_records"]

Record = tuple[str, int, str, bytes]
"""Owner, TTL, type and value of one record, in the order of the file."""

_PLACE = "zone file"
_DIRECTIVES = ("$GENERATE", "$ORIGIN", "$TTL")


class _Sink(dns.zonefile.RRsetsReaderTransaction):
    """Takes every record as it comes."""

    found: list[Record]
    origin: dns.name.Name

    def add(self, *args: object) -> None:
        """Keep one record, whatever is there already."""
        name, ttl, rdata = cast("tuple[dns.name.Name, int, dns.rdata.Rdata]", args)  # as the reader calls it
        if not name.is_subdomain(self.origin):
            raise dns.exception.SyntaxError(f"{name} is not in the zone {self.origin}")  # type: ignore[no-untyped-call]
        self.found.append((name.to_text(), ttl, dns.rdatatype.to_text(rdata.rdtype), cast("bytes", rdata.to_wire())))


class _Ascii(dns.name.IDNACodec):
    """Refuses names in other letters: what they become is another matter for each IDNA, and for BIND their bytes."""

    def encode(self, label: str) -> bytes:
        """Return a label as it is."""
        if not label.isascii():
            raise dns.exception.SyntaxError(f"{label!r} {NOT_ASCII}")  # type: ignore[no-untyped-call]
        return label.encode()


def read_records(text: str, origin: str) -> list[Record]:
    """Parse a zone file. ``$INCLUDE`` is refused.

    Raises:
        ValueError: with the line that is wrong.
    """
    found, wrong = _read(text, origin)
    if wrong is None:
        return found
    line, why = wrong
    until = "".join(f"{each}\n" for each in text.split("\n")[: line - 1])
    if _read(until, origin)[1] == wrong:  # dnspython had read the end of the line already
        line -= 1
    raise ValueError(f"line {line}: {why}")


def _read(text: str, origin: str) -> tuple[list[Record], tuple[int, str] | None]:
    """Return the records, and what dnspython found wrong with the line at which it was then."""
    manager = dns.zonefile.RRSetsReaderManager(origin=dns.name.root)  # all names are within it: none is skipped
    sink = _Sink(manager, True, False)  # type: ignore[no-untyped-call]
    sink.found, sink.origin = [], dns.name.from_text(origin)
    codec = _Ascii()  # type: ignore[no-untyped-call]
    tokenizer = dns.tokenizer.Tokenizer(text, _PLACE, idna_codec=codec)
    reader = dns.zonefile.Reader(tokenizer, dns.rdataclass.IN, sink, allow_directives=_DIRECTIVES)
    reader.current_origin = reader.last_name = sink.origin
    try:
        reader.read()
    except dns.exception.DNSException as exc:
        line = tokenizer.where()[1]
        return [], (line, told(exc, place=f"{_PLACE}:{line}: "))
    return sink.found, None
