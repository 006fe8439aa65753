"""Which values somebody knows who is a recipient no more, for as long as they are the same."""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Iterable, Iterator, Mapping

import attrs

from shiftable.errors import IntegrityError

__all__ = ["NAME", "PLACE", "Exposure"]

NAME = "shiftable_exposed"
"""Its name in the section ``sops``, where sops itself ignores it, and drops it when it writes the file anew."""

PLACE = f"sops:{NAME}:"


@attrs.frozen
class Exposure:
    """Digests of values that were exposed, by their place, each with the time.

    The digests are keyed, and the key is encrypted with them: they tell nothing to who has no key to the file.
    """

    _key: bytes = attrs.field(factory=lambda: os.urandom(32), repr=False)
    _seen: Mapping[tuple[str, str], str] = attrs.field(factory=dict, repr=False)

    @classmethod
    def parsed(cls, text: object) -> Exposure:
        """Read what ``rendered`` has written."""
        try:
            tree = json.loads(text)  # type: ignore[arg-type]  # the error tells
            seen = {(place, digest): str(since) for place, digest, since in tree["values"]}
            return cls(bytes.fromhex(tree["key"]), seen)
        except (KeyError, TypeError, ValueError):
            pass
        raise IntegrityError(f"'{NAME}' in its section 'sops' is malformed")

    def rendered(self, leaves: Iterable[tuple[str, bytes]]) -> str:
        """Write what is still true of the values as they are now; empty if nothing is."""
        live = [(*found, since) for found, since in self._live(leaves)]
        return json.dumps({"key": self._key.hex(), "values": live}, separators=(",", ":")) if live else ""

    def places(self, leaves: Iterable[tuple[str, bytes]]) -> dict[str, str]:
        """Say where values are that were exposed and not changed since, and since when."""
        found: dict[str, str] = {}
        for (place, _), since in self._live(leaves):
            found[place] = min(since, found.get(place, since))
        return found

    def with_all(self, leaves: Iterable[tuple[str, bytes]], since: str) -> Exposure:
        """Return it with all values added; who was exposed before stays so since then."""
        more = {(place, self._digest(place, plain)): since for place, plain in leaves}
        return attrs.evolve(self, seen={**more, **self._seen})

    def _live(self, leaves: Iterable[tuple[str, bytes]]) -> Iterator[tuple[tuple[str, str], str]]:
        for found in dict.fromkeys((place, self._digest(place, plain)) for place, plain in leaves if self._seen):
            if found in self._seen:
                yield found, self._seen[found]

    def _digest(self, place: str, plain: bytes) -> str:
        return hmac.digest(self._key, place.encode() + b"\0" + plain, "sha256").hex()
