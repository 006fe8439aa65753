"""Which objects a move is about: patterns, prefixes, sizes, times, and lists of keys."""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import attrs

from shiftable.errors import InvalidArgument
from shiftable.migrate._glob import Glob

if TYPE_CHECKING:
    from shiftable.migrate.mover import Item, Pin

__all__ = ["Filter", "KeyList", "Rule"]

_DIGEST = 16
_BETWEEN = b"\xff"
"""Between keys: no UTF-8 has it."""


@attrs.frozen
class Rule:
    """A pattern (see ``Glob``), and whether keys that match it are moved or left."""

    include: bool
    pattern: str

    def __attrs_post_init__(self) -> None:
        """Refuse what is no pattern."""
        Glob(self.pattern)


@attrs.frozen
class KeyList:
    """A list of keys, each found by a digest of 16 bytes. Two of the same keys are equal.

    Args:
        digest: of the keys, sorted.
        table: those digests, sorted; not in a saved plan.
        names: the keys in that order, to name those that nobody has.
    """

    digest: str
    count: int
    table: bytes = attrs.field(default=b"", eq=False, repr=False)
    names: bytes = attrs.field(default=b"", eq=False, repr=False)

    @classmethod
    def of(cls, keys: Iterable[str]) -> KeyList:
        """Make a list, in any order, of which keys that come again count once."""
        found = sorted({_digest(encoded) + encoded for encoded in map(_encoded, keys)})
        table = b"".join([each[:_DIGEST] for each in found])
        names = _BETWEEN.join([each[_DIGEST:] for each in found])
        return cls(hashlib.sha256(table).hexdigest(), len(found), table, names)

    @classmethod
    def read(cls, data: bytes) -> KeyList:
        """Read a list of keys in UTF-8: each ended by NUL, if there is one, else one a line, empty lines left out.

        Raises:
            UnicodeDecodeError: it is not UTF-8.
        """
        if b"\0" in data:
            lines = data.removesuffix(b"\0").split(b"\0")
        else:
            lines = [line.removesuffix(b"\r") for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
        return cls.of(line.decode() for line in lines if line)

    def __contains__(self, key: str) -> bool:
        return self.place(key) is not None

    def place(self, key: str) -> int | None:
        """Return where a key stands in the table, ``None`` if it does not."""
        self._check_given()
        wanted = _digest(_encoded(key))
        place = bisect.bisect_left(range(self.count), wanted, key=self._at)
        return place if place < self.count and self._at(place) == wanted else None

    def but(self, met: bytes | bytearray) -> Iterator[str]:
        """Iterate over the keys whose places are zero in ``met``."""
        self._check_given()
        start = 0
        for is_met in met:
            end = self.names.find(_BETWEEN, start)
            name = self.names[start : end if end >= 0 else None]
            start = end + 1
            if not is_met:
                yield name.decode("utf-8", "surrogatepass")

    def _check_given(self) -> None:
        if len(self.table) != self.count * _DIGEST:
            raise InvalidArgument("a saved plan does not hold its list of keys; give the list again")

    def _at(self, place: int) -> bytes:
        return self.table[place * _DIGEST : (place + 1) * _DIGEST]


def _encoded(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")


def _digest(encoded: bytes) -> bytes:
    return hashlib.blake2b(encoded, digest_size=_DIGEST).digest()


def _prefixes(found: Iterable[str]) -> tuple[str, ...]:
    """Sort, and drop what is below another: listings one after the other are in order then, and tell no key twice."""
    kept: list[str] = []
    for prefix in sorted({*found}):
        if not kept or not prefix.startswith(kept[-1]):
            kept.append(prefix)
    return () if kept == [""] else tuple(kept)


def _rules(found: Iterable[Rule]) -> tuple[Rule, ...]:
    return tuple(found)


def _aware(_: object, field: attrs.Attribute[Any], value: datetime | None) -> None:
    if value is not None and value.tzinfo is None:
        raise InvalidArgument(f"{field.name} needs a time zone: {value.isoformat()}")


@attrs.frozen(kw_only=True)
class Filter:
    """Which objects a move is about. The others are hidden: neither copied, compared, deleted nor held against it.

    The first rule whose pattern matches a key decides. Of a key that no rule matches the opposite of the last rule is
    true: after an include the rest is left, after an exclude it is moved.

    Sizes and times are the source's; of an object that is gone from there, those of the version that was moved.

    Args:
        prefixes: only keys that begin with one of them; only these are listed.
        min_size: in bytes, this too; ``max_size`` likewise.
        modified_after: at this time or later.
        modified_before: earlier than this time: windows that follow each other share nothing.
        keys: only these.
    """

    rules: tuple[Rule, ...] = attrs.field(default=(), converter=_rules)
    prefixes: tuple[str, ...] = attrs.field(default=(), converter=_prefixes)
    min_size: int | None = None
    max_size: int | None = None
    modified_after: datetime | None = attrs.field(default=None, validator=_aware)
    modified_before: datetime | None = attrs.field(default=None, validator=_aware)
    keys: KeyList | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse what nothing can pass: that is a mistake, and not a wish."""
        low, high = self.min_size, self.max_size
        if low is not None and high is not None and low > high:
            raise InvalidArgument(f"no object is larger than {low:,} and smaller than {high:,} bytes")
        after, before = self.modified_after, self.modified_before
        if after is not None and before is not None and after >= before:
            raise InvalidArgument(f"no object was modified after {after.isoformat()} and before {before.isoformat()}")

    @property
    def is_open(self) -> bool:
        """Whether everything passes."""
        return self == Filter()

    def admits_key(self, key: str) -> bool:
        """Tell whether a key passes."""
        if self.prefixes and not key.startswith(self.prefixes):
            return False
        if self.keys is not None and key not in self.keys:
            return False
        for include, glob in self._globs:
            if glob.matches(key):
                return include
        return not (self.rules and self.rules[-1].include)

    def admits(self, key: str, size: int, modified: datetime | None) -> bool:
        """Tell whether an object passes. An unknown time passes no bound."""
        if self.min_size is not None and size < self.min_size:
            return False
        if self.max_size is not None and size > self.max_size:
            return False
        if self.modified_after is not None and (modified is None or modified < self.modified_after):
            return False
        if self.modified_before is not None and (modified is None or modified >= self.modified_before):
            return False
        return self.admits_key(key)

    def shows(self, item: Item) -> bool:
        """Tell whether an item of both sides passes."""
        if self._is_open:
            return True
        pin = item.source or (item.record.source if item.record else item.target)
        return pin is not None and self.admits(item.key, pin.size, self._time(pin))

    @property
    def facts(self) -> dict[str, Any]:
        """Return it for JSON, and for digests: of a list of keys its digest, wherever it came from."""
        return {
            "rules": [f"{'+' if rule.include else '-'} {rule.pattern}" for rule in self.rules],
            "prefixes": list(self.prefixes),
            "min_size": self.min_size,
            "max_size": self.max_size,
            "modified_after": _iso(self.modified_after),
            "modified_before": _iso(self.modified_before),
            "keys": [self.keys.digest, self.keys.count] if self.keys is not None else None,
        }

    @property
    def told(self) -> tuple[str, ...]:
        """Say it for people, part by part."""
        found = [f"{'include' if rule.include else 'exclude'} {rule.pattern}" for rule in self.rules]
        if self.rules:
            found.append(f"{'exclude' if self.rules[-1].include else 'include'} the rest")
        found += [f"prefix {prefix}" for prefix in self.prefixes]
        found += [f"at least {self.min_size:,} bytes"] if self.min_size is not None else []
        found += [f"at most {self.max_size:,} bytes"] if self.max_size is not None else []
        found += [f"modified at {_iso(self.modified_after)} or later"] if self.modified_after else []
        found += [f"modified before {_iso(self.modified_before)}"] if self.modified_before else []
        found += [f"{self.keys.count:,} listed keys"] if self.keys is not None else []
        return tuple(found)

    @cached_property
    def _globs(self) -> tuple[tuple[bool, Glob], ...]:
        return tuple((rule.include, Glob(rule.pattern)) for rule in self.rules)

    @cached_property
    def _is_open(self) -> bool:
        return self.is_open

    def _time(self, pin: Pin) -> datetime | None:
        if self.modified_after is None and self.modified_before is None:
            return None
        return datetime.fromisoformat(pin.modified) if pin.modified else None


def _iso(value: datetime | None) -> str | None:
    return None if value is None else value.astimezone(UTC).isoformat()
