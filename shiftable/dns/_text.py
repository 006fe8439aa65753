"""Presentation text of types, rdata and zone files, by dnspython, which is imported when it is first needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from shiftable.dns._wire import embeds_names
from shiftable.errors import ConfigError

__all__ = ["rdata_of", "read_zone", "text_of", "type_name"]


def _dnspython() -> ModuleType:
    try:
        import dns
        import dns.exception
        import dns.name
        import dns.rdata
        import dns.rdataclass
        import dns.rdatatype
        import dns.tokenizer
        import dns.zone
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


def rdata_of(type: str, text: str, origin: str) -> bytes:
    r"""Parse one value, ``10 mail`` of an MX, into its wire form; relative names are completed with the origin.

    The form ``\# 4 c0000201`` of RFC 3597 is understood for every type.

    Raises:
        ValueError: it is no value of that type.
    """
    if embeds_names(type) and not text.isascii():
        raise ValueError(f"{type} {text!r}: write the name in punycode (xn--…)")
    dns = _dnspython()
    base = dns.name.from_text(origin)
    try:
        number = dns.rdatatype.from_text(type)
        parsed = dns.rdata.from_text(dns.rdataclass.IN, number, text, origin=base, relativize=False)
        wire: bytes = parsed.to_wire()
    except (dns.exception.DNSException, ValueError) as exc:
        raise ValueError(f"{type} {text!r}: {str(exc) or exc.__class__.__name__}") from exc
    return wire


def text_of(type: str, rdata: bytes) -> str:
    r"""Print one value; as ``\# 4 c0000201`` if its type is not known or it is malformed."""
    dns = _dnspython()
    try:
        number = dns.rdatatype.from_text(type)
        return str(dns.rdata.from_wire(dns.rdataclass.IN, number, rdata, 0, len(rdata)).to_text())
    except (dns.exception.DNSException, ValueError):
        return f"\\# {len(rdata)} {rdata.hex()}".rstrip()


def read_zone(text: str, origin: str) -> Iterator[tuple[str, str, int, tuple[bytes, ...]]]:
    """Parse a zone file; yield owner, type, TTL and values of each record set. ``$INCLUDE`` is refused.

    Raises:
        ValueError: with about the line that is wrong (dnspython may name the next one).
    """
    dns = _dnspython()
    try:
        zone = dns.zone.from_text(text, origin=origin, relativize=False, check_origin=False, allow_include=False)
    except (dns.exception.DNSException, ValueError) as exc:
        raise ValueError(f"this is no zone file: {str(exc) or exc.__class__.__name__}") from exc
    for owner, rdataset in zone.iterate_rdatasets():
        kind = dns.rdatatype.to_text(rdataset.rdtype)
        yield owner.to_text(), kind, rdataset.ttl, _wires(rdataset)


def _wires(rdatas: Iterable[Any]) -> tuple[bytes, ...]:
    return tuple(rdata.to_wire() for rdata in rdatas)
