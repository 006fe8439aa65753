"""Zone files (master files, RFC 1035, 5) as people write them, by dnspython's reader, which is kept from dropping any.

Left to itself it skips names outside the zone, and keeps the last of several CNAMEs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.tokenizer
import dns.zonefile

__all__ = ["Record", "read_records"]

Record = tuple[str, int, str, bytes]
"""Owner, TTL, type and value of one record, in the order of the file."""


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


def read_records(text: str, origin: str) -> Iterator[Record]:
    """Parse a zone file. ``$INCLUDE`` is refused.

    Raises:
        ValueError: with about the line that is wrong (dnspython may name the next one).
        dns.exception.DNSException: something else is wrong.
    """
    manager = dns.zonefile.RRSetsReaderManager(origin=dns.name.root)  # all names are within it: none is skipped
    sink = _Sink(manager, True, False)  # type: ignore[no-untyped-call]
    sink.found, sink.origin = [], dns.name.from_text(origin)
    reader = dns.zonefile.Reader(dns.tokenizer.Tokenizer(text, "about line "), dns.rdataclass.IN, sink)
    reader.current_origin = reader.last_name = sink.origin
    try:
        reader.read()
    except dns.exception.SyntaxError as exc:
        raise ValueError(str(exc).replace("about line :", "about line ", 1)) from exc
    return iter(sink.found)
