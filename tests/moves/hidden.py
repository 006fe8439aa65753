"""Awkward secrets, always the same ones; and where else than in the stores their values could be found."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import attrs

__all__ = ["CANARY", "Hidden", "hidden", "leaks"]

CANARY = "canary/7f3a9c+sk"
"""Stands in every value that is text, and in most others."""


@attrs.frozen(kw_only=True)
class Hidden:
    """A secret as it should be, or as somebody who knows nothing of shiftable reads it.

    Args:
        values: of its versions, oldest first: text, or bytes that are none.
        current: which of them is.
        previous: the same.
        pending: the value of a rotation in flight.
    """

    values: tuple[str | bytes, ...] = attrs.field(repr=lambda values: f"{len(values)} values")
    current: int
    previous: int | None
    pending: str | bytes | None = attrs.field(default=None, repr=False)
    labels: Mapping[str, str] = attrs.Factory(dict)
    expires: datetime | None = None

    @classmethod
    def of(cls, *values: str | bytes, labels: Mapping[str, str] | None = None) -> Hidden:
        """Return a secret as it is after so many writes."""
        last = len(values) - 1
        return cls(values=values, current=last, previous=last - 1 if last else None, labels=labels or {})


def _named(number: int) -> str:
    if number % 10 == 7:
        return f"Team/Key_{number}.v@1"  # Secret Manager and Key Vault have no such ids
    return f"group-{number % 3}/key-{number}"


def _value(number: int, version: int) -> str | bytes:
    text = f"{CANARY}-{number}-{version}\nü"
    match number % 8:
        case 3:
            return CANARY.encode() + bytes([0, 255, version, number % 256])
        case 5:
            return text + "x" * 20_000
        case 6:
            return f"{CANARY}-{number}-{version % 2}"  # the first and the third one are equal
        case _:
            return text


def hidden(count: int, versions: int = 3) -> dict[str, Hidden]:
    """Make up secrets that every provider holds."""
    found = {}
    for number in range(count):
        made = Hidden.of(*(_value(number, version) for version in range(versions)))
        if number % 5 == 4:
            made = attrs.evolve(made, current=0, previous=versions - 1)  # somebody went back
        if number % 2:
            made = attrs.evolve(made, labels={"owner": "payments", "number": str(number)})
        if number % 7 == 2:
            made = attrs.evolve(made, labels={"Cost Center": "A+B:1", "team": "Größe"})
        if number % 4 == 0:
            made = attrs.evolve(made, expires=datetime(2031, 5, 1, 12, tzinfo=UTC) + timedelta(days=number))
        found[_named(number)] = made
    return found


# leaks


def leaks(values: Iterator[str | bytes], *places: bytes | str | Path) -> list[str]:
    """Return where a value, in whatever spelling, or a hash of one is found: in texts, files and below folders.

    A hash tells anybody who guesses a value that it is right.
    """
    exact, folded = set[bytes](), {spelling.lower() for spelling in _spellings()}
    for value in values:
        raw = value.encode() if isinstance(value, str) else value
        digests = [hashlib.new(name, raw).digest() for name in ("md5", "sha1", "sha256", "sha512", "blake2b")]
        folded |= {digest.hex()[:24].encode() for digest in digests}
        exact |= {each for digest in digests for each in (digest[:12], base64.b64encode(digest)[:16])}
    found = []
    for name, content in _contents(places):
        seen = content.lower()
        if any(spelling in content for spelling in exact) or any(spelling in seen for spelling in folded):
            found.append(name)
    return found


def _spellings() -> set[bytes]:
    """Return the canary as messages and dumps spell it."""
    raw = CANARY.encode()
    shifted = [base64.b64encode(b"x" * shift + raw)[4 if shift else 0 : -4] for shift in range(3)]
    return {
        raw,
        raw[:12],
        raw.hex().encode(),
        quote(CANARY, safe="").encode(),
        raw.decode().encode("utf-16-le"),
        *shifted,
    }


def _contents(places: tuple[bytes | str | Path, ...]) -> Iterator[tuple[str, bytes]]:
    for place in places:
        if isinstance(place, Path):
            files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
            yield from ((str(path), str(path).encode() + path.read_bytes()) for path in files)
    said = [place.encode() if isinstance(place, str) else place for place in places if not isinstance(place, Path)]
    yield "what was said", b"\0".join(said)
