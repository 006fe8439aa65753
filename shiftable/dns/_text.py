"""Presentation text of types, rdata and zone files, by dnspython, which is imported when it is first needed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import ModuleType

from shiftable.dns._plain import decoded, encoded, lines
from shiftable.dns._wire import canonical_name, canonical_rdata, embeds_names, is_within
from shiftable.errors import ConfigError

__all__ = ["EXAMPLES", "file_text", "meant", "rdata_of", "read_zone", "text_of", "told", "type_name"]

EXAMPLES = {
    "A": "192.0.2.1",
    "AAAA": "2001:db8::1",
    "CAA": '0 issue "ca.example"',
    "CNAME": "www.shop.example.",
    "DS": "20326 8 2 and 64 hexadecimal digits",
    "HTTPS": "1 . alpn=h2",
    "MX": "10 mail.shop.example.",
    "NAPTR": '100 10 "u" "E2U+sip" "!^.*$!sip:info@shop.example!" .',
    "NS": "ns1.shop.example.",
    "PTR": "www.shop.example.",
    "SRV": "10 5 5060 sip.shop.example.",
    "SSHFP": "4 2 and 64 hexadecimal digits",
    "SVCB": "1 . alpn=h2",
    "TLSA": "3 1 1 and 64 hexadecimal digits",
    "TXT": '"v=spf1 -all"',
}
"""How values of the types are written that people write by hand."""


_TOLD = {
    "Text input is malformed": "it cannot be read",
    "zone file directive '$INCLUDE' is not allowed": "put the lines of that file in the place of $INCLUDE",
    "string too long": 'a string has at most 255 bytes; write a longer text as several, "v=DKIM1; p=MIIB" "IjAN"',
}
"""What dnspython says, so that it tells what to do."""


def _dnspython() -> ModuleType:
    try:
        import dns
        import dns.exception
        import dns.name
        import dns.rdata
        import dns.rdataclass
        import dns.rdatatype
        import dns.tokenizer
    except ImportError as exc:
        raise ConfigError("DNS records as text need dnspython: pip install 'shiftable[dns]'") from exc
    return dns


def type_name(text: str) -> str:
    """Return the one spelling of a record type: its mnemonic, or ``TYPE65400`` where it has none (RFC 3597).

    Raises:
        ValueError: there is no such type.
    """
    upper = text.upper()
    if upper.isalpha():
        return upper
    dns = _dnspython()
    try:
        return str(dns.rdatatype.to_text(dns.rdatatype.from_text(upper)))
    except (dns.exception.DNSException, ValueError) as exc:
        raise ValueError(f"{text!r} is no record type") from exc


def meant(type: str, text: str) -> str:
    """Return a value, unless a zone file makes of it what its writer will not have meant.

    Raises:
        ValueError: outside quotes a semicolon begins a comment, or spaces make several texts of one and are lost.
    """
    bare = re.sub(r'"(?:[^"\\]|\\.)*"|\\.', "", text)
    is_text = type.upper() in {"TXT", "SPF"} and '"' not in text
    if ";" in bare:
        why = "what follows a semicolon outside quotes is a comment"
    elif is_text and len(bare.split()) > 1:
        why = "without quotes these are several texts, and the spaces between them are lost"
    else:
        return text
    raise ValueError(f"{type} {text!r}: {why}" + (f'; write it as "{text}", with the quotes' if is_text else ""))


def rdata_of(type: str, text: str, origin: str) -> bytes:
    r"""Parse one value, ``10 mail`` of an MX, into its wire form; relative names are completed with the origin.

    The form ``\# 4 c0000201`` of RFC 3597 is understood for every type.

    Raises:
        ValueError: it is no value of that type.
    """
    plain = encoded(type, text, origin)
    if plain is not None:
        return plain
    if embeds_names(type) and not text.isascii():
        raise ValueError(f"{type} {text!r}: write the name in punycode (xn--…)")
    dns = _dnspython()
    base = dns.name.from_text(origin)
    try:
        number = dns.rdatatype.from_text(type)
        parsed = dns.rdata.from_text(dns.rdataclass.IN, number, text, origin=base, relativize=False)
        wire: bytes = parsed.to_wire()
    except (dns.exception.DNSException, ValueError) as exc:
        raise ValueError(f"{type} {text!r}: {told(exc)}{_example(type)}") from exc
    return wire


def told(exc: Exception, *, place: str = "") -> str:
    """Say what dnspython found wrong, which it begins with the place; of addresses it says no more than that."""
    said = (str(exc) or exc.__class__.__name__).removeprefix(place).rstrip(".")
    return _TOLD.get(said, said)


def _example(type: str) -> str:
    return f"; it is written as {EXAMPLES[type]}" if type in EXAMPLES else ""


def text_of(type: str, rdata: bytes) -> str:
    r"""Print one value; as ``\# 4 c0000201`` if its type is not known or it is malformed."""
    plain = decoded(type, rdata)
    if plain is not None:
        return plain
    dns = _dnspython()
    try:
        number = dns.rdatatype.from_text(type)
        return str(dns.rdata.from_wire(dns.rdataclass.IN, number, rdata, 0, len(rdata)).to_text())
    except (dns.exception.DNSException, ValueError):
        return f"\\# {len(rdata)} {rdata.hex()}".rstrip()


def file_text(source: str | bytes) -> str:
    """Decode a zone file, which may begin with a byte order mark, and whose lines may end as on Windows.

    Raises:
        ValueError: with the line that is not UTF-8.
    """
    try:
        text = source if isinstance(source, str) else source.decode()
    except UnicodeDecodeError as exc:
        line = exc.object.count(b"\n", 0, exc.start) + 1
        raise ValueError(f"line {line} is not UTF-8; write such bytes as \\DDD") from exc
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def read_zone(text: str, origin: str) -> Iterator[tuple[str, str, int, tuple[bytes, ...]]]:
    """Parse a zone file; yield owner, type, TTL and values of each record set. ``$INCLUDE`` is refused.

    A value that stands there twice is there once; of several TTLs the shortest one counts (RFC 2181, 5.2). Nothing else
    is put right: what DNS forbids is yielded as it stands.

    Raises:
        ValueError: with the line that is wrong.
        ConfigError: dnspython is needed and not installed.
    """
    found: dict[tuple[str, str], tuple[int, dict[bytes, bytes]]] = {}
    for owner, ttl, kind, rdata in _records(text, origin):
        known = found.get((owner, kind))
        values = known[1] if known else {}
        same = rdata if kind == "SOA" else canonical_rdata(kind, rdata)  # of two SOA, the serial tells which is meant
        values.setdefault(same, rdata)
        found[owner, kind] = (min(ttl, known[0]) if known else ttl, values)
    return ((owner, kind, ttl, tuple(values.values())) for (owner, kind), (ttl, values) in found.items())


def _records(text: str, origin: str) -> Iterator[tuple[str, int, str, bytes]]:
    try:
        return iter(_plain_records(text, origin))
    except ValueError:
        pass  # or else it is wrong, and dnspython says where
    _dnspython()
    from shiftable.dns._master import read_records

    try:
        records = read_records(text, origin)
    except ValueError as exc:
        raise ValueError(f"this is no zone file: {exc}") from exc
    return ((canonical_name(owner), ttl, kind, rdata) for owner, ttl, kind, rdata in records)


def _plain_records(text: str, origin: str) -> list[tuple[str, int, str, bytes]]:
    """Read a zone file with a record a line.

    Raises:
        ValueError: it is none, or something in it is wrong.
    """
    found, names, kinds = [], dict[str, str](), dict[str, str]()
    for owner, ttl, kind, value in lines(text, origin):
        name = names.get(owner) or names.setdefault(owner, _within(owner, origin))
        spelt = kinds.get(kind) or kinds.setdefault(kind, type_name(kind))
        found.append((name, ttl, spelt, rdata_of(spelt, value, origin)))
    return found


def _within(owner: str, origin: str) -> str:
    name = canonical_name(owner)
    if not is_within(name, origin):
        raise ValueError(f"{name} is not in the zone {origin}")
    return name
