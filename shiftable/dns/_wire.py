"""Names and rdata as bytes: what is compared, sorted and kept. Nothing here knows presentation text but of names."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = [
    "NOT_ASCII",
    "absolute",
    "canonical_name",
    "canonical_rdata",
    "canonical_rdatas",
    "embeds_names",
    "is_within",
    "labels",
    "relative",
]

_PLAIN = re.compile(r"(?:[a-z0-9_*/-]{1,63}\.)+")
_SPECIAL = frozenset(b'."();@$\\')
NOT_ASCII = "is not ASCII; write it in punycode (xn--…), or a raw byte as \\DDD"
_LONGEST_LABEL = 63  # RFC 1035, 2.3.4
_LONGEST_NAME = 255  # the same; with the length bytes and the root

# Where names stand in an rdata: n a name, s a character string, a number so many bytes; what follows is left alone.
# RFC 4034, 6.2 lists most of them; SVCB and HTTPS came later and their target is a name like any other.
_LAYOUTS: dict[str, tuple[int | str, ...]] = {
    **dict.fromkeys(("CNAME", "DNAME", "MB", "MD", "MF", "MG", "MR", "NS", "NSEC", "NXT", "PTR"), ("n",)),
    **dict.fromkeys(("MINFO", "RP", "SOA", "TALINK"), ("n", "n")),
    **dict.fromkeys(("AFSDB", "HTTPS", "KX", "LP", "MX", "RT", "SVCB"), (2, "n")),
    **dict.fromkeys(("RRSIG", "SIG"), (18, "n")),
    "NAPTR": (4, "s", "s", "s", "n"),
    "PX": (2, "n", "n"),
    "SRV": (6, "n"),
}


def labels(name: str) -> tuple[bytes, ...]:
    r"""Split the text of a name into its labels, resolving ``\.`` and ``\DDD``.

    Raises:
        ValueError: it is no name.
    """
    if name == ".":
        return ()
    if _PLAIN.fullmatch(name) and len(name) < _LONGEST_NAME:
        return tuple(name[:-1].encode().split(b"."))
    found, label = [], bytearray()
    for piece in _pieces(name.removesuffix(".") if _is_absolute(name) else name):
        if piece is None:
            found.append(bytes(label))
            label.clear()
        else:
            label.append(piece)
    found.append(bytes(label))
    if any(not 0 < len(part) <= _LONGEST_LABEL for part in found):
        raise ValueError(f"{name!r} has an empty label or one of more than {_LONGEST_LABEL} bytes")
    if sum(len(part) + 1 for part in found) + 1 > _LONGEST_NAME:
        raise ValueError(f"{name!r} is longer than {_LONGEST_NAME} bytes")
    return tuple(found)


def _pieces(text: str) -> Iterator[int | None]:
    """Yield the bytes of a name, ``None`` between its labels."""
    if not text.isascii():
        raise ValueError(f"{text!r} {NOT_ASCII}")
    at = 0
    while at < len(text):
        character = text[at]
        at += 1
        if character == ".":
            yield None
        elif character != "\\":
            yield ord(character)
        elif text[at : at + 3].isdigit() and len(text[at : at + 3]) == 3 and int(text[at : at + 3]) < 256:
            yield int(text[at : at + 3])
            at += 3
        elif at < len(text) and not text[at].isdigit():
            yield ord(text[at])
            at += 1
        else:
            raise ValueError(f"{text!r} has a bad escape; write \\DDD with three decimal digits below 256")


def _is_absolute(name: str) -> bool:
    """Tell whether a name ends in a dot that is not escaped."""
    stem = name.removesuffix(".")
    backslashes = len(stem) - len(stem.rstrip("\\"))
    return stem != name and backslashes % 2 == 0


def _joined(parts: tuple[bytes, ...]) -> str:
    return "".join(f"{_escaped(part)}." for part in parts) or "."


def _escaped(label: bytes) -> str:
    return "".join(
        f"\\{byte:c}" if byte in _SPECIAL else f"{byte:c}" if 0x21 <= byte <= 0x7E else f"\\{byte:03d}"
        for byte in label.lower()
    )


def canonical_name(name: str) -> str:
    """Return a fully qualified name in its one spelling: lower case, escaped only where it must be, a dot at the end.

    Raises:
        ValueError: it is no name, or not fully qualified.
    """
    lower = name.lower()
    if _PLAIN.fullmatch(lower) and len(lower) < _LONGEST_NAME:
        return lower
    if not _is_absolute(name):
        raise ValueError(f"{name!r} is not fully qualified; end it with a dot")
    return _joined(labels(name))


def absolute(name: str, origin: str) -> str:
    """Return the canonical name for one that may be relative to ``origin``; ``@`` is the origin itself."""
    if name == "@":
        return origin
    return canonical_name(name if _is_absolute(name) else f"{name}.{origin.removeprefix('.')}")


def is_within(name: str, origin: str) -> bool:
    r"""Tell whether a canonical name is the origin or below it: by labels, since ``a\.b.`` is not below ``b.``."""
    if not name.endswith(origin):
        return False
    if "\\" not in name:
        return origin in {name, "."} or name.endswith(f".{origin}")
    inner = labels(origin)
    return not inner or labels(name)[-len(inner) :] == inner


def relative(name: str, origin: str) -> str:
    """Return a canonical name within the origin as people write it there: ``www``, ``@``."""
    return "@" if name == origin else name.removesuffix(f".{origin}")


def embeds_names(type: str) -> bool:
    """Tell whether rdata of that type has domain names in it."""
    return type in _LAYOUTS


def canonical_rdata(type: str, rdata: bytes) -> bytes:
    """Return the rdata with the names in it in lower case, for comparison.

    All else stays: two TXT with the same text in other chunks are two values, and so are NAPTR flags ``u`` and ``U``.
    Of an SOA the serial does not count: its server counts it up.
    """
    layout = _LAYOUTS.get(type)
    if layout is None:
        return rdata
    folded, at = bytearray(rdata), 0
    try:
        for part in layout:
            end = at + part if isinstance(part, int) else _end(rdata, at, part)
            if part == "n":
                # A length byte is at most 63 and so below every letter: lower() leaves it alone.
                folded[at:end] = rdata[at:end].lower()
            at = end
    except IndexError:
        return rdata  # malformed, but the provider's own: equal only to itself
    if type == "SOA":
        folded[at : at + 4] = bytes(4)
    return bytes(folded)


def canonical_rdatas(type: str, rdatas: tuple[bytes, ...]) -> frozenset[bytes]:
    """Return several of them: of most types as they are, without a look at each."""
    return frozenset([canonical_rdata(type, rdata) for rdata in rdatas] if type in _LAYOUTS else rdatas)


def _end(rdata: bytes, at: int, part: str) -> int:
    """Return where the name or character string that begins here ends."""
    if part == "s":
        return at + 1 + rdata[at]
    while rdata[at]:
        at += 1 + rdata[at]
    return at + 1
