"""Values of the usual types as text, where they have nothing unusual in them: many times faster than a whole parser.

Each function returns ``None`` for what it does not understand, right or wrong; then dnspython has the word.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Callable, Iterator

__all__ = ["Line", "decoded", "encoded", "lines"]

Line = tuple[str, int, str, str]
"""Owner, TTL, type and value of one record in a zone file."""

_NAME = re.compile(r"(?:[A-Za-z0-9_*/-]{1,63}\.)*[A-Za-z0-9_*/-]{1,63}\.?")
_WIRE_LABEL = re.compile(rb"[A-Za-z0-9_*/-]{1,63}")
_LONGEST_NAME = 255
_CHUNKS = re.compile(r'"[ !#-\[\]-~]{0,255}"(?: "[ !#-\[\]-~]{0,255}")*')
_WIRE_CHUNK = re.compile(rb"[ !#-\[\]-~]*")
_TAG = re.compile(r"[A-Za-z0-9]{1,15}")
_LONG = re.compile(r"[0-9]{1,10}")
_TIMES = struct.Struct("!5I")  # the serial of an SOA, and what follows it
_MAX_TTL = 2**31 - 1  # RFC 2181, 8
_LINE = re.compile(
    r"([^\s;$()\"@][^\s;()\"]*)[ \t]+(\d{1,10})[ \t]+(?:IN[ \t]+)?([A-Z][A-Z0-9]*)[ \t]+"
    r"((?:[^\s\"();\\]|[ \t]|\\.|\"(?:[^\"\\]|\\.)*\")+)"
)


def _name(text: str, origin: str) -> bytes | None:
    if text == "@":
        text = origin
    elif text == ".":
        return b"\0"
    elif text[-1:] != ".":
        text = f"{text}.{origin}" if origin != "." else f"{text}."
    if len(text) >= _LONGEST_NAME or not _NAME.fullmatch(text):
        return b"\0" if text == "." else None
    return b"".join([b"%c%b" % (len(label), label) for label in text.encode().split(b".")])


def _number(text: str, size: int) -> bytes | None:
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        return None
    number = int(text)
    return number.to_bytes(size, "big") if number < 1 << 8 * size else None


def _text_name(rdata: bytes, at: int) -> str | None:
    """Print the name that begins there and ends with the rdata."""
    labels, end = [], len(rdata)
    while at < end and (length := rdata[at]):
        label = rdata[at + 1 : at + 1 + length]
        if len(label) < length or not _WIRE_LABEL.fullmatch(label):
            return None
        labels.append(label.decode())
        at += 1 + length
    if at != end - 1:
        return None
    return ".".join(labels) + "." if labels else "."


# one type each


def _address(text: str, _origin: str) -> bytes | None:
    try:
        return socket.inet_pton(socket.AF_INET, text)
    except (OSError, ValueError):
        return None


def _address_text(rdata: bytes) -> str | None:
    return "%d.%d.%d.%d" % tuple(rdata) if len(rdata) == 4 else None  # noqa: UP031  RFC 1035; the fastest


def _address6(text: str, _origin: str) -> bytes | None:
    try:
        return socket.inet_pton(socket.AF_INET6, text)
    except (OSError, ValueError):
        return None


def _address6_text(rdata: bytes) -> str | None:
    if len(rdata) != 16 or rdata.startswith(bytes(10)):
        return None
    return socket.inet_ntop(socket.AF_INET6, rdata)


def _target(text: str, origin: str) -> bytes | None:
    return _name(text, origin)


def _target_text(rdata: bytes) -> str | None:
    return _text_name(rdata, 0)


def _numbered(count: int) -> tuple[Callable[[str, str], bytes | None], Callable[[bytes], str | None]]:
    """Make the two for a type with so many numbers of 16 bits before a name."""

    def encode(text: str, origin: str) -> bytes | None:
        parts = text.split(" ")
        if len(parts) != count + 1:
            return None
        found = [_number(part, 2) for part in parts[:-1]]
        found.append(_name(parts[-1], origin))
        return b"".join(each for each in found if each is not None) if None not in found else None

    def decode(rdata: bytes) -> str | None:
        name = _text_name(rdata, 2 * count)
        if name is None:
            return None
        numbers = [str(int.from_bytes(rdata[at : at + 2], "big")) for at in range(0, 2 * count, 2)]
        return " ".join([*numbers, name])

    return encode, decode


def _start(text: str, origin: str) -> bytes | None:
    """Parse an SOA; times with units are left to dnspython."""
    parts = text.split(" ")
    if len(parts) != 7 or not all(_LONG.fullmatch(part) and int(part) < 1 << 32 for part in parts[2:]):
        return None
    names = [_name(part, origin) for part in parts[:2]]
    if None in names:
        return None
    return b"".join([name for name in names if name is not None] + [_TIMES.pack(*map(int, parts[2:]))])


def _start_text(rdata: bytes) -> str | None:
    end, at = len(rdata) - _TIMES.size, 0
    while at < end and rdata[at]:
        at += 1 + rdata[at]
    if at >= end - 1:
        return None
    names = [_text_name(rdata[: at + 1], 0), _text_name(rdata[at + 1 : end], 0)]
    if None in names:
        return None
    return " ".join([name for name in names if name is not None] + list(map(str, _TIMES.unpack_from(rdata, end))))


def _strings(text: str, _origin: str) -> bytes | None:
    if not _CHUNKS.fullmatch(text):
        return None
    return b"".join([b"%c%b" % (len(chunk), chunk) for chunk in text[1:-1].encode().split(b'" "')])


def _strings_text(rdata: bytes) -> str | None:
    chunks, at, end = [], 0, len(rdata)
    while at < end:
        chunk = rdata[at + 1 : at + 1 + rdata[at]]
        if len(chunk) < rdata[at] or not _WIRE_CHUNK.fullmatch(chunk):
            return None
        chunks.append(chunk.decode())
        at += 1 + len(chunk)
    return '"' + '" "'.join(chunks) + '"' if chunks else None


def _authority(text: str, _origin: str) -> bytes | None:
    flags, _, rest = text.partition(" ")
    tag, _, value = rest.partition(" ")
    number = _number(flags, 1)
    if number is None or not _TAG.fullmatch(tag) or not _CHUNKS.fullmatch(value) or '" "' in value:
        return None
    return b"%b%c%b%b" % (number, len(tag), tag.encode(), value[1:-1].encode())


def _authority_text(rdata: bytes) -> str | None:
    if len(rdata) < 2:
        return None
    tag, value = rdata[2 : 2 + rdata[1]], rdata[2 + rdata[1] :]
    if not tag.isalnum() or len(tag) < rdata[1] or not _WIRE_CHUNK.fullmatch(value):
        return None
    return f'{rdata[0]} {tag.decode()} "{value.decode()}"'


_ENCODE: dict[str, Callable[[str, str], bytes | None]] = {
    "A": _address,
    "AAAA": _address6,
    "CAA": _authority,
    **dict.fromkeys(("CNAME", "NS", "PTR"), _target),
    "SOA": _start,
    **dict.fromkeys(("SPF", "TXT"), _strings),
}
_DECODE: dict[str, Callable[[bytes], str | None]] = {
    "A": _address_text,
    "AAAA": _address6_text,
    "CAA": _authority_text,
    **dict.fromkeys(("CNAME", "NS", "PTR"), _target_text),
    "SOA": _start_text,
    **dict.fromkeys(("SPF", "TXT"), _strings_text),
}
_ENCODE["MX"], _DECODE["MX"] = _numbered(1)
_ENCODE["SRV"], _DECODE["SRV"] = _numbered(3)


def encoded(type: str, text: str, origin: str) -> bytes | None:
    """Parse one value into its wire form; relative names are completed with the origin."""
    encode = _ENCODE.get(type)
    return encode(text, origin) if encode is not None else None


def decoded(type: str, rdata: bytes) -> str | None:
    """Print one value as dnspython does."""
    decode = _DECODE.get(type)
    return decode(rdata) if decode is not None else None


def lines(text: str, origin: str) -> Iterator[Line]:
    """Split a zone file with a record a line, as ``Zone.export_file`` writes them.

    Raises:
        ValueError: it is written otherwise.
    """
    for line in text.split("\n"):
        match = _LINE.fullmatch(line)
        if match is not None:
            owner, ttl, kind, value = match.groups()
            if owner[-1] != "." or owner[-2:-1] == "\\":
                raise ValueError(f"{owner!r} is relative")
            if int(ttl) > _MAX_TTL:
                raise ValueError(f"{ttl} is no TTL")
            yield owner, int(ttl), kind, value
        elif line and line != f"$ORIGIN {origin}":
            raise ValueError(f"{line!r} is no record")
